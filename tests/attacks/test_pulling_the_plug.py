"""SIGKILL at every system call that touches the ledger, and at random moments: what was reserved stays spent."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.errors import BudgetExhausted, LedgerBusy
from privacy.events import NonPrivate, SampledGaussian
from privacy.ledger import Ledger

DELTA = 1e-5
EVENT = NonPrivate("decoder")                                # costs infinity at once, so that a child spends no time accounting


def child(work: Callable[[int], None]) -> tuple[int, int]:
    """Fork; the child works and tells through a pipe what returned. -> (its pid, the pipe's reading end)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            work(writer)
        finally:
            os._exit(0)
    os.close(writer)
    return pid, reader


def told(pid: int, reader: int) -> tuple[bytes, bool]:
    """Everything the child acknowledged before it died, and whether it was killed."""
    status = os.waitpid(pid, 0)[1]
    heard = b"".join(iter(lambda: os.read(reader, 4096), b""))
    os.close(reader)
    return heard, os.WIFSIGNALED(status)


def life(path: Path, writer: int) -> None:
    """One round that is answered and one that is given up; a letter for each call that returned."""
    with Ledger(path, DELTA) as ledger:
        first = ledger.reserve(EVENT, "one", float("inf"))
        os.write(writer, b"r")
        ledger.release(first, "1" * 64)
        os.write(writer, b"s")
        second = ledger.reserve(EVENT, "two", float("inf"))
        os.write(writer, b"r")
        ledger.abandon(second)
        os.write(writer, b"a")


def deadly(path: Path, fatal: int, half: bool) -> Callable[[int], None]:
    """The same life, killed at its `fatal`-th write or fsync: before it, or with half of the bytes written."""

    def work(writer: int) -> None:
        calls, write, fsync = 0, os.write, os.fsync

        def due() -> bool:
            nonlocal calls
            calls += 1
            return calls == fatal

        def counted_write(file: int, data: bytes) -> int:
            if file != writer and due():
                if half:
                    write(file, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(file, data)

        def counted_fsync(file: int) -> None:
            if due():
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(file)

        os.write, os.fsync = counted_write, counted_fsync  # type: ignore[assignment]  # in the child alone
        life(path, writer)

    return work


def never_under_counts(path: Path, heard: bytes) -> None:
    with Ledger(path, DELTA) as ledger:                      # the lock died with the child
        reserved = heard.count(b"r")
        assert reserved <= len(ledger.events) <= reserved + 1
        released = sum(ledger.released(reservation) is not None for reservation in ledger.reservations)
        assert heard.count(b"s") <= released
        if b"a" in heard:
            assert ledger.standing(EVENT, "two") is None, "what was given up must not come back"
    Ledger(path, DELTA).close()


@pytest.mark.parametrize("half", [False, True])
def test_no_kill_at_any_system_call_under_counts(tmp_path: Path, half: bool) -> None:
    fatal = 0
    killed = True
    while killed:
        fatal += 1
        path = tmp_path / f"{fatal}.jsonl"
        heard, killed = told(*child(deadly(path, fatal, half)))
        never_under_counts(path, heard)
    assert fatal > 10, "five records, each written and synced, and the folder"
    assert heard == b"rsra"


@pytest.mark.slow
def test_no_kill_at_any_moment_under_counts(tmp_path: Path) -> None:
    def spend(path: Path, writer: int) -> None:
        with Ledger(path, DELTA) as ledger:
            for number in range(10**6):
                ledger.reserve(EVENT, str(number), float("inf"))
                os.write(writer, b"r")

    for number in range(20):
        path = tmp_path / f"{number}.jsonl"
        pid, reader = child(lambda writer, path=path: spend(path, writer))
        heard = os.read(reader, 1)                           # at least one, then some
        time.sleep(random.random() * 0.01)
        os.kill(pid, signal.SIGKILL)
        rest, killed = told(pid, reader)
        assert killed
        with Ledger(path, DELTA) as ledger:
            assert len(heard + rest) <= len(ledger.events) <= len(heard + rest) + 1


@pytest.mark.slow
def test_four_processes_in_a_race_spend_no_more_than_one_budget(tmp_path: Path) -> None:
    path, step, limit = tmp_path / "ledger.jsonl", SampledGaussian("decoder", 4.0, 0.25, 5), 2.0

    def greedy(writer: int) -> None:
        while True:
            try:
                with Ledger(path, DELTA) as ledger:
                    ledger.reserve(step, "mine", limit)
                    os.write(writer, b"r")
            except LedgerBusy:
                continue
            except BudgetExhausted:
                return

    heard = b"".join(told(*started)[0] for started in [child(greedy) for _ in range(4)])
    with Ledger(path, DELTA) as ledger:
        assert len(ledger.events) == len(heard) > 1
        assert ledger.epsilon <= limit
        with pytest.raises(BudgetExhausted):
            ledger.reserve(step, "one more", limit)
