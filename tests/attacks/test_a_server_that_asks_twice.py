"""The server asks for a round it has had, to average the noise away or to see the patients again. One charge, one answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from privacy.egress import Cleared
from tests.client.studies import charges, request, site, study

ROOT = Path(__file__).parents[2]
PLAN = study()
KILLED_IN_TRAINING = """
import os, signal, sys
from pathlib import Path
from tests.client.studies import Scans, request, site, study

class Deadly:
    excluded = ()
    @property
    def training(self):                  # asked for after the round was reserved, before its first gradient
        os.kill(os.getpid(), signal.SIGKILL)

scans = Scans()
scans.cohort = Deadly()
site(Path(sys.argv[1]), scans=scans).round(request(study()))
"""


def values_of(cleared: Cleared) -> np.ndarray:
    assert cleared.values is not None, dict(cleared.header)
    return cleared.values


def test_asking_many_times_gives_no_average_of_many_noises(tmp_path: Path) -> None:
    """By a site that was restarted in between, and whatever values come with the question."""
    answers = [site(tmp_path).round(request(PLAN, shift=0.01 * n)) for n in range(5)]
    assert all(np.array_equal(values_of(answer), values_of(answers[0])) for answer in answers)
    assert {answer.header["start"] for answer in answers} == {request(PLAN).digest}
    assert charges(tmp_path) == 1


def test_an_answer_that_is_gone_or_changed_is_not_made_again(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.round(request(PLAN))
    (kept,) = (tmp_path / "north" / "answers").iterdir()
    for spoil in (kept.read_bytes()[:-4], kept.read_bytes()[:-1] + b"?", b"", None):
        kept.unlink() if spoil is None else kept.write_bytes(spoil)
        answer = here.round(request(PLAN))
        assert (answer.header["code"], answer.header["exit_code"], answer.values) == ("integrity", 6, None)
    assert charges(tmp_path) == 1


@pytest.mark.slow
def test_kill_9_in_the_middle_of_training_is_paid_once_and_answered_once(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_IN_TRAINING, str(tmp_path)], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert charges(tmp_path) == 1
    first, second = (values_of(site(tmp_path).round(request(PLAN))) for _ in range(2))
    assert np.array_equal(first, second)
    assert charges(tmp_path) == 1
