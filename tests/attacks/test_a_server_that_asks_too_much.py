"""The server is curious: it asks again, asks for more, asks in another plan's name, and sends values made to tell."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privacy.ledger import Ledger
from tests.client.studies import rehearsal, request, site, study

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


def charges(folder: Path) -> int:
    with Ledger(folder / "north" / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        return len(ledger.events)


def test_asking_many_times_gives_no_average_of_many_noises(tmp_path: Path) -> None:
    answers = [site(tmp_path).round(request(PLAN, shift=0.01 * n)).values for n in range(5)]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)  # type: ignore[arg-type]  # updates have values
    assert charges(tmp_path) == 1


def test_another_plan_gets_nothing_and_costs_nothing(tmp_path: Path) -> None:
    greedy = study(privacy={"mechanism": "local", "epsilon": 1000.0, "delta": 1e-5})
    for digest in (greedy.digest, "0" * 64, "", PLAN.digest.upper()):
        answer = site(tmp_path).round(replace(request(PLAN), plan=digest))
        assert (answer.header["code"], answer.header["exit_code"]) == ("plan-refused", 3)
    assert charges(tmp_path) == 0


@pytest.mark.parametrize("number", [0, -1, 3, 10**9, True, 1.0, math.nan, "1", None])
def test_a_round_beyond_the_plan_is_refused(tmp_path: Path, number: object) -> None:
    answer = site(tmp_path).round(replace(request(PLAN), round=number))
    assert answer.header["code"] == "plan-refused"
    assert charges(tmp_path) == 0


@pytest.mark.parametrize("stage", ["encoder", "", "decoder ", "../decoder"])
def test_a_stage_beyond_the_plan_is_refused(tmp_path: Path, stage: str) -> None:
    assert site(tmp_path).round(replace(request(PLAN), stage=stage)).header["code"] == "plan-refused"
    assert charges(tmp_path) == 0


GOOD = request(PLAN).values


@pytest.mark.parametrize(
    "values",
    [GOOD[:-1], np.append(GOOD, GOOD), GOOD[:0], GOOD[None], GOOD.astype(np.float64), GOOD.astype(object), GOOD.tolist(), None,
     np.where(np.arange(len(GOOD)) == 3, np.float32(math.nan), GOOD), np.full_like(GOOD, math.inf)],
)  # fmt: skip
def test_values_that_fit_no_model_cost_nothing(tmp_path: Path, values: object) -> None:
    answer = site(tmp_path).round(replace(request(PLAN), values=values))
    assert (answer.header["code"], answer.header["exit_code"]) == ("request-refused", 1)
    assert charges(tmp_path) == 0


@pytest.mark.parametrize("size", [1e3, 1e15, 3e38])
def test_values_made_to_overflow_get_a_bounded_answer(tmp_path: Path, size: float) -> None:
    plan = rehearsal()                                       # without noise, so that the bound itself is seen
    stage = plan.stage("decoder")
    answer = site(tmp_path, plan).round(replace(request(plan), values=np.full_like(GOOD, size)))
    if answer.values is None:                                # float32 may not hold start + change; then nothing leaves
        assert answer.header["code"] == "egress-refused"
        return
    drawn, declared = 3, 8
    step = stage.learning_rate * stage.clip * drawn / (stage.sample_rate * declared)
    spacing = float(np.spacing(np.float32(size)))            # what rounding of the start itself can add
    most = step * (2 + stage.momentum) * (1 + 1e-4) + 2 * spacing * math.sqrt(len(answer.values))
    assert np.linalg.norm(answer.values.astype(np.float64)) <= most


def test_a_second_plan_on_the_same_patients_draws_on_the_same_budget(tmp_path: Path) -> None:
    for name in ("decoder", "generator"):
        for number in (1, 2):
            assert site(tmp_path).round(request(PLAN, name, number)).header["kind"] == "update"
    renamed = study(study="another")
    answer = site(tmp_path, renamed).round(request(renamed))
    assert (answer.header["code"], answer.header["exit_code"]) == ("budget-exhausted", 5)


def test_a_rehearsal_without_privacy_leaves_nothing_to_spend(tmp_path: Path) -> None:
    plan = rehearsal()
    assert site(tmp_path, plan).round(request(plan)).header["epsilon"] == math.inf
    assert site(tmp_path).round(request(PLAN)).header["code"] == "budget-exhausted"


def test_without_privacy_only_in_a_rehearsal_whoever_made_the_plan(tmp_path: Path) -> None:
    forged = rehearsal().model_copy(update={"rehearsal": None})     # past the plan's own validation
    assert site(tmp_path, forged).ready().header["code"] == "plan-refused"
    assert site(tmp_path, forged).round(request(forged)).header["code"] == "plan-refused"
    assert charges(tmp_path) == 0


@pytest.mark.slow
def test_kill_9_in_the_middle_of_training_is_paid_once_and_answered_once(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_IN_TRAINING, str(tmp_path)], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert charges(tmp_path) == 1
    first = site(tmp_path).round(request(PLAN))
    second = site(tmp_path).round(request(PLAN))
    assert first.values is not None
    assert np.array_equal(first.values, second.values)  # type: ignore[arg-type]  # updates have values
    assert charges(tmp_path) == 1
