"""The process that forks itself for each message: a fork of its own for each, and no fork without its caller."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.join import write_gate
from tests.end_to_end.hospitals import wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_S = 200.0


def forks(of: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's folder with its gate, deeper than the name of a socket may be long."""
    folder = tmp_path / ("a hospital with a long name " * 6)
    (folder / "flower").mkdir(parents=True)
    (folder / "site.toml").write_text('[site]\nname = "north"\ndata = "data"\n[policy]\nepsilon = 1.0\nsmallest_cohort = 8\n')
    write_gate(folder, folder / "site.pem")
    return folder


@pytest.fixture
def warm(site: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, and what its forks say in warm.log."""
    with (site / "warm.log").open("w") as log:
        words = [sys.executable, "-I", "-m", "client.warm", str(site), str(site / "site.pem")]
        process = subprocess.Popen(words, stdout=log, stderr=log, text=True)
    wait(lambda: (site / "flower" / "warm").exists(), "no socket", PATIENCE_S, (site / "warm.log").read_text)
    yield process
    process.kill()
    process.wait()


def gate(site: Path, *words: str) -> subprocess.Popen[str]:
    program = [site / "bin" / "flwr-clientapp", *words]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def silent_node() -> Iterator[tuple[str, threading.Event]]:
    """A node's address at which nobody ever answers, and whether somebody asked."""
    asked, held = threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def listen() -> None:
            with contextlib.suppress(OSError):               # the door was closed
                held.append(door.accept()[0])
                asked.set()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield f"127.0.0.1:{door.getsockname()[1]}", asked
        finally:
            door.shutdown(socket.SHUT_RDWR)
            listener.join()
            for one in held:
                one.close()


def test_a_message_is_worked_on_by_a_fork_that_says_what_the_program_says(site: Path, warm: subprocess.Popen[str]) -> None:
    for _ in range(2):
        with gate(site, "--help") as caller:
            assert caller.wait(PATIENCE_S) == 0
            assert caller.communicate() == ("", "")
    assert (site / "warm.log").read_text().count("Run a Flower ClientApp") == 2
    wait(lambda: not forks(warm.pid), "a fork stayed", PATIENCE_S)
    assert warm.poll() is None


def test_only_this_user_can_call(site: Path, warm: subprocess.Popen[str]) -> None:
    assert (site / "flower" / "warm").stat().st_mode & 0o077 == 0


@contextlib.contextmanager
def at_work(site: Path, warm: subprocess.Popen[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A caller and its fork, which waits for a node that never answers."""
    said = (site / "warm.log").read_text
    with silent_node() as (where, asked), gate(site, "--runtime-api-address", where, "--token", "t", "--insecure") as caller:
        assert asked.wait(PATIENCE_S), said()
        wait(lambda: bool(forks(warm.pid)), "no fork", PATIENCE_S, said)
        (fork,) = forks(warm.pid)
        yield caller, fork


def test_a_caller_that_is_killed_takes_its_fork_along(site: Path, warm: subprocess.Popen[str]) -> None:
    with at_work(site, warm) as (caller, fork):
        caller.kill()
        wait(lambda: fork not in forks(warm.pid), "the fork lives on", PATIENCE_S, str)
    assert warm.poll() is None


def test_a_fork_that_is_killed_ends_its_caller(site: Path, warm: subprocess.Popen[str]) -> None:
    with at_work(site, warm) as (caller, fork):
        os.kill(fork, signal.SIGKILL)
        caller.wait(PATIENCE_S)
    assert warm.poll() is None


def test_without_a_warm_process_the_gate_does_the_work_itself(site: Path) -> None:
    with gate(site, "--help") as caller:
        out, err = caller.communicate(timeout=PATIENCE_S)
    assert caller.returncode == 0
    assert "Run a Flower ClientApp" in out
    assert "no process is warm" in err
