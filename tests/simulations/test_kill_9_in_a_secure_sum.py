"""kill -9 of the process that holds the server and all sites, within a secure sum: taken up, paid once, the same numbers.

With processes of their own, and one dying alone: tests/end_to_end/test_crash_in_a_sum.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from braing3n_core.data.cohort import Cohort
from privacy.ledger import Ledger
from server.lost_sums import lost_sums
from simulations.federation import federate
from tests.client.studies import PEOPLE, brain
from tests.summed import NAMES, summed

pytestmark = pytest.mark.slow                                # each takes rounds
ROOT = Path(__file__).parents[2]
PLAN = summed()
KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from braing3n_core.data.cohort import Cohort
from simulations.federation import federate
from tests.client.studies import PEOPLE, brain
from tests.summed import NAMES, summed

def deadly(request, reply):                 # the site has spoken, the server has not heard it
    if (reply[0], request.part.step, request.round) == ("south", sys.argv[2], 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return reply

federate(summed(), Path(sys.argv[1]), dict.fromkeys(NAMES, Cohort(PEOPLE, ())), lambda line: None, deadly, brain)
"""


def paid(out: Path) -> list[int]:
    counts = []
    for name in NAMES:
        with Ledger(out / "sites" / name / "ledger.jsonl", PLAN.privacy.delta) as ledger:
            counts.append(len(ledger.events))
    return counts


@pytest.mark.parametrize(("step", "before"), [("letters", [0, 0, 0]), ("numbers", [1, 1, 0]), ("story", [1, 1, 1])])
def test_it_is_taken_up_and_nobody_pays_twice(tmp_path: Path, step: str, before: list[int]) -> None:
    words = [sys.executable, "-c", KILLED_AFTER, str(tmp_path), step]
    assert subprocess.run(words, cwd=ROOT, env=os.environ, check=False).returncode == -signal.SIGKILL
    assert paid(tmp_path) == before
    masked = {path: path.read_bytes() for path in tmp_path.glob("sites/*/answers/*.u32")}
    assert len(masked) == sum(before)
    federate(PLAN, tmp_path, dict.fromkeys(NAMES, Cohort(PEOPLE, ())), lambda line: None, prior=brain)
    assert paid(tmp_path) == [2, 2, 2]
    assert all(path.read_bytes() == numbers for path, numbers in masked.items()), "numbers of one sum are made once"
    assert lost_sums(tmp_path / "checkpoints") == ()
    rows = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [row["replied"] for row in rows] == [sorted(NAMES)] * 2
