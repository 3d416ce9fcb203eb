"""The server is curious: it asks in another plan's name, in another site's, for what is no round, with values made to tell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import PlanRefused
from client.gate import admit
from tests.attacks.bundles import approved_with, ask
from tests.client.studies import charges, rehearsal, request, site, study

PLAN = study()


def test_another_plan_gets_nothing_and_costs_nothing(tmp_path: Path) -> None:
    greedy = study(privacy={"mechanism": "local", "epsilon": 1000.0, "delta": 1e-5})
    for digest in (greedy.digest, "0" * 64, "", PLAN.digest.upper()):
        answer = site(tmp_path).round(replace(request(PLAN), plan=digest))
        assert (answer.header["code"], answer.header["exit_code"]) == ("plan-refused", 3)
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


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "query.ledger", "train.round2", ""])
def test_a_request_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    one = approved_with(tmp_path)
    with pytest.raises(PlanRefused, match="of a kind this site does not know"):
        admit(one.site, ask(one, kind=kind))


@pytest.mark.parametrize("name", ["south", "", None, "North"])
def test_a_round_meant_for_another_site_is_refused(tmp_path: Path, name: str | None) -> None:
    one = approved_with(tmp_path)
    with pytest.raises(PlanRefused, match="meant for another site"):
        admit(one.site, ask(one, site=name))
