"""The consortium's server: a SuperLink on loopback that knows the enrolled keys, and the door in front of it, kept running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NoReturn

from braing3n_core.bundle import toml_lines
from braing3n_core.errors import Braing3nError, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import BIN, Process, Say, answers, end_all, environment, free_port, start
from braing3n_core.journal import journalled
from privacy.signing import PublicKey
from server.certificates import refuse_incomplete
from server.consortium import Consortium
from server.lock import held

_START_S = 60.0                                              # for the SuperLink to answer
_LOOK_S = 1.0                                                # between two looks at processes and roster


class Link:
    """Flower's SuperLink, in memory: what must survive is in our checkpoints, and its SQLite locks up with large models.

    Its processes carry a FLWR_HOME of their own, so that they can all be found and ended.
    """

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self.home, self.admin = consortium.folder / "flower" / "link", consortium.folder / "flower" / "admin"
        self._registered: dict[str, tuple[str, str]] = {}    # site -> its key (PEM) and Flower's number for its node

    @property
    def port(self) -> int:
        """Where it listens on loopback, the same across restarts."""
        return int(json.loads((self._consortium.folder / "flower" / "link.json").read_text(encoding="utf-8"))["port"])

    @property
    def up(self) -> bool:
        """Whether it answers."""
        try:
            return answers(self.port)
        except (OSError, ValueError, KeyError):
            return False

    def prepare(self) -> None:
        """Choose a port and tell Flower's own commands where it is."""
        for folder in (self.home / "empty", self.admin):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        port, ca = free_port(), str(self._consortium.tls / "ca.crt")
        write_atomically(self._consortium.folder / "flower" / "link.json", json.dumps({"port": port}).encode())
        rows = toml_lines({"address": f"127.0.0.1:{port}", "root-certificates": ca})
        text = "\n".join(['[superlink]\ndefault = "link"', "[superlink.link]", *rows]) + "\n"
        write_atomically(self.admin / "config.toml", text.encode())

    def run(self, log: IO[str]) -> Process:
        """Start it, nobody registered yet. Raises Braing3nError if it does not answer in a minute."""
        end_all(self.home)
        self._registered = {}
        tls = self._consortium.tls
        words = [
            "flower-superlink", "--ssl-ca-certfile", str(tls / "ca.crt"), "--ssl-certfile", str(tls / "server.crt"),
            "--ssl-keyfile", str(tls / "server.key"), "--enable-supernode-auth", "--host", "127.0.0.1",
            "--port", str(self.port), "--isolation", "subprocess", "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        process, deadline = start(words, self.home / "empty", environment(self.home), log), time.monotonic() + _START_S
        while not self.up:
            if process.poll() is not None or not time.monotonic() < deadline:
                raise Braing3nError("Flower's SuperLink did not start; superlink.log in the consortium's folder says why")
            time.sleep(0.2)
        return process

    def agree_with_roster(self, say: Say) -> None:
        """Register who was enrolled since, and throw out who was removed or has a new key."""
        wanted = self._consortium.roster().keys
        for site in [site for site, (pem, _) in self._registered.items() if wanted.get(site) != pem]:
            self._flwr("supernode", "unregister", self._registered.pop(site)[1], "link")
            say(f"{site} may not join any more")
        for site, pem in wanted.items():
            if site not in self._registered:
                path = self.admin / f"{site}.pub"
                write_atomically(path, PublicKey.from_pem(pem.encode()).openssh)
                answer = self._flwr("supernode", "register", str(path), "link", "--name", site, "--format", "json")
                self._registered[site] = (pem, str(json.loads(answer)["node-id"]))
                say(f"{site} may join")

    def _flwr(self, *words: str) -> str:
        done = subprocess.run(  # noqa: S603 - a program of our own environment, no shell
            [str(BIN / "flwr"), *words], env=environment(self.admin), cwd=self.home / "empty",
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[:200]
            raise Braing3nError(f"Flower refused `{words[0]} {words[1]}`: {said}; superlink.log says more")
        return done.stdout


def serve(consortium: Consortium, host: str, port: int, say: Say) -> NoReturn:
    """Keep the server running until it is told to stop (Ctrl-C, SIGTERM). Everything Flower says goes to superlink.log."""
    refuse_incomplete(consortium.tls)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    link, home = Link(consortium), consortium.folder / "flower" / "door"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(consortium.folder / "flower"), (consortium.folder / "superlink.log").open("a", encoding="utf-8") as log:
        for left in (link.home, home):                       # by a killed `serve`
            end_all(left)
        try:
            link.prepare()
            _keep_running(consortium, link, home, (host, port), log, journalled(consortium.folder, say))
        finally:
            for place in (home, link.home):
                end_all(place)


def _keep_running(
    consortium: Consortium, link: Link, home: Path, address: tuple[str, int], log: IO[str], say: Say
) -> NoReturn:
    superlink = link.run(log)
    link.agree_with_roster(say)
    door = _door(consortium, link, home, address, log)
    say(f"serving at {address[0]}:{address[1]}; hospitals reach the fleet paths alone")
    while True:
        time.sleep(_LOOK_S)
        if superlink.poll() is not None:
            say("the SuperLink ended; starting it again, runs are taken up at their last whole round")
            superlink = link.run(log)
        if door.poll() is not None:
            say("the door ended; starting it again")
            door = _door(consortium, link, home, address, log)
        link.agree_with_roster(say)


def _door(consortium: Consortium, link: Link, home: Path, address: tuple[str, int], log: IO[str]) -> Process:
    host, port = address
    words = [sys.executable, "-I", "-m", "server.fleet_door", host, str(port), str(link.port), str(consortium.tls)]
    door, deadline = start(words, link.home / "empty", environment(home), log), time.monotonic() + _START_S
    while not answers(port):
        if door.poll() is not None or not time.monotonic() < deadline:
            raise UsageError(f"nothing can listen at {host}:{port}; superlink.log says why, --port names another")
        time.sleep(0.2)
    return door
