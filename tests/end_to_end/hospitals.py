"""A consortium and its hospitals as separate processes on loopback, brought up by the commands that people type."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from braing3n_core.flower_process import free_port
from privacy.signing import SigningKey

BIN = Path(sys.executable).parent
NAMES = ("north", "south", "east")
ALONE = {"OMP_NUM_THREADS": "1"}                             # for hospitals on one machine: none waits for another's threads
PLAN = """
study = "loopback"
question = "Does every part of the road work between processes?"
seed = 1
sites = [{sites}]

[data]
registration = "none"

[privacy]
mechanism = "local"
epsilon = 8.0
delta = 1e-4

[[stages]]
name = "decoder"
trainable = "group:style"
rounds = {rounds}
local_steps = {steps}
sample_rate = 0.25
views = 1
clip = 1.0
learning_rate = 0.01
share = 1.0

[federation]
quorum = {quorum}
deadline_s = {deadline}

[release]
seed = 1
steps = 2
cells = [{{ count = 1, conditions = {{ age = [20.0, 90.0] }} }}]
"""
SUMMED = ('"local"\nepsilon = 8.0\ndelta = 1e-4', """"secure-sum"
epsilon = 8.0
delta = 1e-4

[privacy.secure_sum]
fallback_epsilon = 20.0
dropped = 0
colluding = 1
spare = {spare}""")


def command(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / name, *map(str, words)], capture_output=True, text=True, timeout=800, check=False)


def done(name: str, *words: str | Path) -> str:
    ended = command(name, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@dataclass
class Consortium:
    """Folders of one consortium and its hospitals, and the processes that run for them."""

    place: Path
    names: tuple[str, ...]
    summed: bool = False                                     # by secure sums
    spare: int = 0                                           # rounds, of those
    steps: int = 2                                           # of training in a round, without them
    port: int = 0
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.place / "consortium"

    @property
    def signed(self) -> Path:
        return self.folder / "plans" / "loopback.signed.json"

    @property
    def run(self) -> Path:
        (found,) = (self.folder / "runs").glob("*")
        return found

    def site(self, name: str) -> Path:
        return self.place / name

    def begin(
        self, patients: int, rounds: int, quorum: int, deadline_s: float = 900.0, real: Sequence[Path] = ()
    ) -> None:
        """Keys, data folders and certificates, an enrolled roster, a signed plan that every hospital approved.

        `real`: a folder of real scans for each hospital, in place of phantoms.
        """
        if not real:
            done("braing3n-sim", "phantom", self.place / "data", "--patients", patients, "--sites", len(self.names))
        self.establish(real or sorted(path for path in (self.place / "data").iterdir() if path.is_dir()), patients)
        plan = self.place / "plan.toml"
        sites = ", ".join(f'{{ name = "{name}", patients = {patients} }}' for name in self.names)
        steps = 1 if self.summed else self.steps
        text = PLAN.format(sites=sites, rounds=rounds, quorum=quorum, deadline=deadline_s, steps=steps)
        text = text.replace('registration = "none"', 'registration = "affine"') if real else text
        plan.write_text(text.replace(*SUMMED).replace("{spare}", str(self.spare)) if self.summed else text)
        done("braing3n-admin", "plan", "sign", plan, "--consortium", self.folder)
        for name in self.names:
            done("braing3n-site", "approve", self.signed, "--site", self.site(name))

    def establish(self, folders: Sequence[Path], patients: int) -> None:
        """The consortium's folder and the hospitals', on data in `folders`, all of them enrolled. No plan yet."""
        done("braing3n-admin", "init", self.folder)
        self.port = free_port()
        for name, data in zip(self.names, folders, strict=True):
            self.hospital(name, data, patients)
            self.enrol(name)

    def enrol(self, name: str) -> None:
        done("braing3n-admin", "enrol", name, self.site(name) / "keys" / "site.pem.pub", "--consortium", self.folder)

    def hospital(self, name: str, data: Path, patients: int) -> None:
        folder = self.site(name)
        (folder / "keys").mkdir(parents=True)
        SigningKey.generate().write(folder / "keys" / "site.pem")
        (folder / "keys" / "admin.pub").write_bytes((self.folder / "keys" / "admin.pem.pub").read_bytes())
        about = {"name": name, "data": str(data), "server": f"127.0.0.1:{self.port}", "ca": str(self.folder / "tls" / "ca.crt")}
        rows = [f"{key} = {json.dumps(value)}" for key, value in about.items()]
        rows = ["[site]", *rows, "[policy]", "epsilon = 8.0", f"smallest_cohort = {patients}"]
        rows += ['mechanisms = ["secure-sum"]', "fallback_epsilon = 20.0"] if self.summed else []
        (folder / "site.toml").write_text("\n".join(rows) + "\n")

    def serve(self) -> None:
        made = (self.folder / "tls").exists()
        words = ["--host", "127.0.0.1", "--port", str(self.port), *([] if made else ["--make-test-certificates", "localhost"])]
        self.up("serve", "braing3n-admin", "serve", str(self.folder), *words)
        self.until("serve", "serving at")

    def join(self, name: str) -> None:
        self.up(name, "braing3n-site", "join", "--site", str(self.site(name)))

    def start(self) -> None:
        self.up("start", "braing3n-admin", "start", str(self.signed), "--consortium", str(self.folder))

    def up(self, role: str, *words: str) -> None:
        with self.log(role).open("a") as log:
            self.running[role] = subprocess.Popen(
                [BIN / words[0], *words[1:]], env=os.environ | ALONE, stdout=log, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )  # fmt: skip

    def log(self, role: str) -> Path:
        return self.place / f"{role}.log"

    def until(self, role: str, text: str, patience_s: float = 120.0) -> None:
        wait(lambda: text in self.log(role).read_text(), f"{role} never said {text!r}", patience_s, self.said)

    def ended(self, role: str, patience_s: float = 400.0) -> int:
        wait(lambda: self.running[role].poll() is not None, f"{role} did not end", patience_s, self.said)
        return int(self.running.pop(role).returncode)

    def said(self) -> str:
        logs = [*self.place.glob("*.log"), *self.place.glob("*/node.log"), *self.place.glob("*/site.log"),
                self.folder / "superlink.log"]  # fmt: skip
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in logs if path.exists())

    def kill(self, *roles: str) -> None:
        """SIGKILL a command alone; what it started lives on."""
        for role in roles:
            self.running[role].kill()
            self.running.pop(role).wait()

    def end(self) -> None:
        for role, process in self.running.items():
            process.send_signal(signal.SIGINT if role == "start" else signal.SIGTERM)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        for number in processes(str(self.place)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self.running.values():
            process.wait()
        self.running.clear()


def processes(mark: str, *words: str) -> list[int]:
    """Processes, ours not counted, with `mark` in their environment or words, and all of `words` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes()
            seen = mark.encode() in line or mark.encode() in (path / "environ").read_bytes()
            if seen and all(word.encode() in line for word in words) and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def wait(
    holds: Callable[[], bool], otherwise: str, patience_s: float, said: Callable[[], str] = str, pause_s: float = 0.2
) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"{otherwise}\n{said()}"
        time.sleep(pause_s)


@contextlib.contextmanager
def consortium(
    place: Path, names: tuple[str, ...] = NAMES, summed: bool = False, spare: int = 0, steps: int = 2
) -> Iterator[Consortium]:
    made = Consortium(place, names, summed, spare, steps=steps)
    try:
        yield made
    finally:
        made.end()
