"""Taking part: this hospital's node, with its own key and its own gate, started again whenever it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Process, Say, end_all, environment, free_port, start
from braing3n_core.journal import journalled
from braing3n_core.passphrase import passphrase_for
from client.approvals import own_key
from client.site_file import SiteFile
from privacy.signing import SigningKey

_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 2.0, 15.0                # between two tries
_JOINED = "SuperNode ID"                                     # Flower says so once the server took the key


def join(site: SiteFile, passphrase_file: Path | None, say: Say) -> NoReturn:
    """Keep this hospital's node running until it is told to stop (Ctrl-C, SIGTERM). Everything it says goes to node.log."""
    if not site.server:
        raise UsageError("site.toml names no server; set server = \"host:port\" as the consortium told you")
    key = SigningKey.load(site.key, passphrase_for(site.key, passphrase_file))
    if key.public != own_key(site):
        raise UsageError(f"{site.key.name} and {site.key.name}.pub are not one key; restore the pair")
    home = site.folder / "flower"
    with _alone(site.folder / "join.lock"), _in_memory(key) as file:
        _make_empty(home)
        end_all(home)                                        # what a killed join left behind
        try:
            _keep_running(site, home, file, journalled(site.folder, say))
        finally:
            end_all(home)


def write_gate(folder: Path, key: Path) -> Path:
    """<site>/bin/flwr-clientapp, which Flower finds before its own. It imports from the installation alone.

    `key`: where processes of this user find the site's key, as long as this one lives.
    """
    path = folder / "bin" / "flwr-clientapp"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    code = f"from client.warm import call; call({str(folder)!r}, {str(key)!r})"
    write_atomically(path, f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -c {shlex.quote(code)} "$@"\n'.encode())
    path.chmod(0o700)
    return path


def waits() -> Iterator[float]:
    """Seconds between one try and the next: doubling, with an end."""
    wait = _SHORTEST_WAIT_S
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT_S)


def _keep_running(site: SiteFile, home: Path, key: int, say: Say) -> NoReturn:
    tries, own = waits(), Path(f"/proc/{os.getpid()}/fd/{key}")
    seen = environment(home, write_gate(site.folder, own).parent)
    while True:
        say(f"{site.name}: joining {site.server}")
        with _private(site.folder / "node.log") as log:

            def joined(log: int = log) -> Process:
                say(f"{site.name}: joined; requests are worked on as they come")
                return start([sys.executable, "-I", "-m", "client.warm", str(site.folder), str(own)], home / "empty", seen, log)

            warm = _watch(start(_words(site, key), home / "empty", seen, log, [key]), site, log, joined)
        end_all(home)
        if warm is not None:
            warm.wait()
            tries = waits()
        wait = next(tries)
        say(f"{site.name}: not joined; trying again in {wait:.0f} s. node.log says why, and so does: braing3n-site doctor")
        time.sleep(wait)


def _words(site: SiteFile, key: int) -> list[str]:
    return [
        sys.executable, "-I", "-m", "client.node", "--superlink", site.server, "--root-certificates", str(site.ca),
        "--auth-supernode-private-key", f"/dev/fd/{key}", "--port", str(free_port()),
    ]  # fmt: skip


def _watch(node: Process, site: SiteFile, log: int, joined: Callable[[], Process]) -> Process | None:
    """Until the node ends. What `joined` started as soon as the node had joined; None if it never did."""
    path, begin, warm = site.folder / "node.log", os.fstat(log).st_size, None
    while node.poll() is None:
        if warm is None and _JOINED.encode() in path.read_bytes()[begin:]:
            warm = joined()
        time.sleep(0.5)
    return warm


def _make_empty(home: Path) -> None:
    """Flower imports from the folder it was started in, so that one stays empty."""
    (home / "empty").mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (home / "empty").iterdir():
        raise UsageError(f"{path} must not be there: a node imports from its working directory; remove it")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One join a site: two would take turns in throwing each other off the server."""
    with _private(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError("this site has joined already, in another process; stop that one first") from error
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield


@contextlib.contextmanager
def _in_memory(key: SigningKey) -> Iterator[int]:
    """The key as a file that is on no disk, for the node that it is passed to and for the gate, which signs with it."""
    file = os.memfd_create("key")
    try:
        os.fchmod(file, 0o600)
        os.write(file, key.openssh())
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _private(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)
