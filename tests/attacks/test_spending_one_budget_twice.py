"""Two processes, a fork or a kill at the worst moment try to get more out of a budget than it holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from privacy.accountant import epsilon
from privacy.errors import BudgetExhausted, LedgerBusy
from privacy.events import SampledGaussian
from privacy.ledger import Ledger

DELTA = 1e-5
STEP = SampledGaussian("decoder", 4.0, 0.25, 5)
ONE = epsilon([STEP], DELTA)
ROOT = Path(__file__).parents[2]
BEGIN = f"""
import os, sys, time
from pathlib import Path
from privacy.errors import BudgetExhausted, LedgerBusy
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
path, step = Path(sys.argv[1]), SampledGaussian("decoder", 4.0, 0.25, 5)
def report(word):
    print(word, flush=True)
with Ledger(path, {DELTA}) as ledger:
"""
HOLD = """
    ledger.reserve(step, "held", 100.0)
    report("reserved")
    time.sleep(60)                       # the training that never ends
"""
FORK = """
    child = os.fork()
    try:
        ledger.reserve(step, f"from {child == 0}", 100.0)
    except LedgerBusy:
        os._exit(7)
    os._exit(0 if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def started(path: Path, body: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BEGIN + body, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_second_process_cannot_spend_what_the_first_may_still_spend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with started(path, HOLD) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "reserved\n"
            with pytest.raises(LedgerBusy, match="two cannot spend one budget"):
                Ledger(path, DELTA)
        finally:
            holder.kill()


@pytest.mark.slow
def test_kill_9_between_reserving_and_training_costs_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with started(path, HOLD) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "reserved\n"
        os.kill(holder.pid, signal.SIGKILL)
    with Ledger(path, DELTA) as ledger:                      # the lock died with its holder
        assert ledger.events == (STEP,)
        with pytest.raises(BudgetExhausted):
            ledger.reserve(STEP, "once more", 1.1 * ONE)


@pytest.mark.slow
def test_a_forked_child_does_not_inherit_the_right_to_spend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with started(path, FORK) as parent:
        assert parent.wait(600) == 7                         # the machine may be busy
    with Ledger(path, DELTA) as ledger:
        assert len(ledger.events) == 1


def test_no_kill_at_any_byte_lets_a_reservation_that_returned_disappear(tmp_path: Path) -> None:
    """The file as a kill would leave it after each byte of the second reservation: the first one always counts."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        ledger.reserve(STEP, "first", 100.0)
        safe = len(path.read_bytes())
        ledger.reserve(STEP, "second", 100.0)
    whole = path.read_bytes()
    for cut in range(safe, len(whole)):
        path.write_bytes(whole[:cut])
        with Ledger(path, DELTA) as ledger:
            assert len(ledger.events) == (2 if cut == len(whole) - 1 else 1)
