"""`braing3n-sim bench round --deployed`: the same as round_cost.py over real processes, on one machine.

Ours: the commands that people type, so a SuperLink, the door in front of it, TLS, node keys, and a node a hospital that starts
a process for every message. Flower's FedAvg: its own SuperLink and nodes with the same certificates and keys, no door, and its
own client. The first round is left out here too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from subprocess import TimeoutExpired

from braing3n_core.agreement import Agreement, write_envelope
from braing3n_core.bundle import installed_digest, toml_lines, write_app
from braing3n_core.console import heartbeat
from braing3n_core.data.hospital import write_hospital
from braing3n_core.errors import OK, Braing3nError, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Process, Say, answers, end_all, environment, free_port, start
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings
from client.approvals import approve
from client.site_file import FILE, SiteFile
from privacy.signing import SigningKey
from server.certificates import make_test_certificates
from server.conduct import claim
from server.consortium import Consortium
from server.serve import Link
from server.start import verdict
from simulations.bench.round_cost import PLAIN, Least, Row, least, measured, seconds_of, sized

_UP_S, _DOWN_S = 300.0, 60.0                                 # for the door to answer; for a command to end


@dataclass(frozen=True)
class _Place:
    """One consortium and its hospitals in a folder: keys, certificates, phantom scans."""

    folder: Path
    plan: TrainingPlan
    consortium: Consortium
    keys: dict[str, SigningKey]

    @classmethod
    def made(cls, folder: Path, plan: TrainingPlan) -> _Place:
        """Everything that must be there before a process starts. Raises UsageError if there was a bench before."""
        if (folder / "consortium").exists():
            raise UsageError(f"{folder} holds a bench already; name another folder")
        consortium = Consortium.make(folder / "consortium")
        make_test_certificates(consortium.tls, "localhost")
        keys, roster = {}, consortium.roster()
        for site in plan.sites:
            keys[site.name] = SigningKey.generate()
            roster = roster.enrolled(site.name, keys[site.name].public)
            write_hospital(folder / "hospitals" / site.name, site, plan)
        consortium.write_roster(roster)
        return cls(folder, plan, consortium, keys)

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name


def bench(plan: TrainingPlan, steps: int, rounds: int, out: Path, say: Say) -> list[Row]:
    """Ours, then plain FedAvg, over processes: `plan`'s sites and patients, one stage of `rounds` rounds of `steps` steps."""
    todo = sized(plan, steps, rounds)
    floors = least(todo, _threads(len(plan.sites)))          # measured while nothing else runs here
    say(f"braing3n: {rounds} rounds of {steps} local steps, over processes")
    unvoted = todo.privacy.model_copy(update={"vote_epsilon": 0.0})  # it comes after the run
    ours = _ours(_Place.made(out / "braing3n", todo.but(rehearsal=None, privacy=unvoted)), floors, say)
    say(f"Flower FedAvg: {rounds} rounds of {steps} local steps, over processes")
    return [ours, _plain(_Place.made(out / "flower-fedavg", todo), floors, say)]


def _ours(place: _Place, floors: Least, say: Say) -> Row:
    port = free_port()
    signed = _agreed(place, port)
    with _processes(place) as up, heartbeat(say, "training behind the processes of a consortium"):
        up("braing3n-admin", "serve", str(place.consortium.folder), "--host", "127.0.0.1", "--port", str(port))
        _until_it_answers(port, place.folder)
        for name in place.keys:
            up("braing3n-site", "join", "--site", str(place.site(name)))
        code = up("braing3n-admin", "start", str(signed), "--consortium", str(place.consortium.folder)).wait()
    out = place.consortium.run(place.plan.digest)
    return _row("braing3n", out, {name: place.site(name) for name in place.keys}, code, floors)


def _agreed(place: _Place, port: int) -> Path:
    """The plan as the consortium signed it and every hospital approved it."""
    pems = {name: key.public.pem.decode() for name, key in place.keys.items()}
    agreement = Agreement(plan=place.plan, bundle=installed_digest(), version=version("braing3n"), keys=pems)
    signed = place.consortium.folder / "plans" / "bench.signed.json"
    write_envelope(signed, agreement.signed(SigningKey.load(place.consortium.admin_key)))
    for name, key in place.keys.items():
        folder = place.site(name)
        (folder / "keys").mkdir(mode=0o700, parents=True)
        key.write(folder / "keys" / "site.pem")
        site = {
            "name": name, "data": str(place.folder / "hospitals" / name), "server": f"127.0.0.1:{port}",
            "ca": str(place.consortium.tls / "ca.crt"), "admin_key": f"{place.consortium.admin_key}.pub",
        }  # fmt: skip
        policy = {"epsilon": place.plan.privacy.epsilon, "smallest_cohort": place.plan.site(name).patients}
        rows = ["[site]", *toml_lines(site), "[policy]", *toml_lines(policy)]
        write_atomically(folder / FILE, ("\n".join(rows) + "\n").encode())
        approve(SiteFile.load(folder), signed, key, agreement.bundle)
    return signed


def _plain(place: _Place, floors: Least, say: Say) -> Row:
    """Flower as it comes; both apps are installed modules (plain_fedavg.py)."""
    claim(place.plan, place.folder)
    link, settings = Link(place.consortium), Settings(place.plan, place.folder)
    link.prepare()
    beat = heartbeat(say, "training behind the processes of plain Flower")
    with _processes(place) as up, beat, (place.folder / "superlink.log").open("w", encoding="utf-8") as log:
        try:
            up.started.append(link.run(log))
            link.agree_with_roster(say)
            for part, key in enumerate(place.keys.values()):
                words = ["--superlink", f"127.0.0.1:{link.port}", "--root-certificates", str(place.consortium.tls / "ca.crt")]
                words += ["--port", str(free_port()), "--node-config", f"partition-id={part} num-partitions={len(place.keys)}"]
                with _in_memory(key) as file:
                    up("flower-supernode", *words, "--auth-supernode-private-key", f"/dev/fd/{file}", keep=file)
            config, app = place.folder / "run.toml", write_app(place.folder / "app", *PLAIN)
            config.write_text("\n".join(toml_lines(settings.config())) + "\n", encoding="utf-8")
            run = up("flwr", "run", str(app), "link", "--stream", "--run-config", str(config), home=link.admin)
            while run.poll() is None and not (place.folder / "run.json").exists():
                time.sleep(0.5)
        finally:
            end_all(link.home)
    folders = {name: settings.folder(name) for name in place.keys}
    return _row("Flower FedAvg", place.folder, folders, verdict(place.folder), floors)


def _row(system: str, out: Path, sites: dict[str, Path], code: int | None, floors: Least) -> Row:
    if code != OK:
        raise Braing3nError(f"{system} ended with exit code {code}; the logs beside {out} say why")
    trained = [seconds_of(folder, "trained") for folder in sites.values()]
    return measured(system, seconds_of(out, "round"), [max(each) for each in zip(*trained, strict=True)], floors)


def _threads(sites: int) -> int:
    """Hospitals have machines of their own; here each has its share of one, and waits for no other's threads."""
    return max(1, (os.cpu_count() or 1) // sites)


class _Up:
    """Starts processes that all end together, each with a log of its own and an empty place to work in."""

    def __init__(self, folder: Path, sites: int) -> None:
        self._folder, self.homes = folder, list[Path]()
        self._threads = _threads(sites)
        self.started: list[Process] = []

    def __call__(self, program: str, *words: str, home: Path | None = None, keep: int | None = None) -> Process:
        """`home`: an FLWR_HOME that is there already. `keep`: an open file that the process may read as /dev/fd/N."""
        place = self._folder / "processes" / f"{len(self.started)}-{program}"
        (place / "empty").mkdir(parents=True)
        self.homes.append(home or place)
        with (place / "log").open("w", encoding="utf-8") as log:
            kept = [] if keep is None else [keep]
            seen = environment(home or place, OMP_NUM_THREADS=str(self._threads))
            self.started.append(start([program, *words], place / "empty", seen, log, kept))
        return self.started[-1]


@contextlib.contextmanager
def _processes(place: _Place) -> Iterator[_Up]:
    up = _Up(place.folder, len(place.keys))
    try:
        yield up
    finally:
        for process in up.started:
            process.terminate()
        for process in up.started:                           # our commands end what they started themselves
            with contextlib.suppress(TimeoutExpired):
                process.wait(_DOWN_S)
        for home in up.homes:
            end_all(home)


@contextlib.contextmanager
def _in_memory(key: SigningKey) -> Iterator[int]:
    file = os.memfd_create("key")
    try:
        os.write(file, key.openssh())
        yield file
    finally:
        os.close(file)


def _until_it_answers(port: int, folder: Path) -> None:
    deadline = time.monotonic() + _UP_S
    while not answers(port):
        if not time.monotonic() < deadline:
            raise Braing3nError(f"the consortium's server did not start; the logs in {folder / 'processes'} say why")
        time.sleep(0.2)
