"""What a hospital forbids stays forbidden, and the operator reads why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from braing3n_core.errors import PlanRefused
from client.policy import Policy
from server import plans
from tests.client.studies import rehearsal, stage, study
from tests.summed import summed

TOGETHER = "against the server and all other hospitals together it may spend epsilon"


def policy(**changes: Any) -> Policy:
    return Policy.model_validate_json(json.dumps({"epsilon": 8.0, "smallest_cohort": 8} | changes))


def test_a_plan_within_every_bound_meets_no_objection() -> None:
    assert policy().objections(study(), "north") == ()


def test_the_plan_that_a_consortium_starts_from_meets_no_objection_of_a_hospital_that_says_nothing_else(tmp_path: Path) -> None:
    plan = plans.new(tmp_path / "plan.toml", "ageing", [("north", 120), ("south", 90)])
    assert Policy(epsilon=8.0).objections(plan, "north") == ()


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"epsilon": 7.999}, "it may spend epsilon 8, more than the 7.999 allowed here for ever"),
        ({"largest_delta": 1e-6}, "its delta 1e-05 is larger than the 1e-06 allowed here"),
        ({"stages": ["decoder"]}, "stage generator is not one of decoder"),
        ({"smallest_cohort": 9}, "it declares 8 patients of this site, fewer than the 9 allowed here"),
    ],
)
def test_each_bound_is_told_in_words(bounds: dict[str, Any], said: str) -> None:
    assert policy(**bounds).objections(study(), "north") == (said,)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({}, 'mechanism "secure-sum" is not one of local'),
        ({"mechanisms": ["secure-sum"]}, f"{TOGETHER} 12, more than the 8 allowed here for ever"),
        ({"mechanisms": ["secure-sum"], "fallback_epsilon": 11.0}, f"{TOGETHER} 12, more than the 11 allowed here for ever"),
    ],
)
def test_secure_sums_need_the_hospital_s_word_and_keep_to_its_fallback(bounds: dict[str, Any], said: str) -> None:
    assert said in policy(**bounds).objections(summed(), "north")
    assert policy(mechanisms=["local", "secure-sum"], fallback_epsilon=12.0).objections(summed(), "north") == ()


def test_a_hospital_may_demand_secure_sums() -> None:
    assert policy(mechanisms=["secure-sum"]).objections(study(), "north") == ('mechanism "local" is not one of secure-sum',)


def test_a_rehearsal_and_a_run_without_privacy_never_touch_patients() -> None:
    said = policy().objections(rehearsal(), "north")
    assert any("rehearsal" in line for line in said)
    assert any("non-private" in line for line in said)


def test_all_objections_come_at_once() -> None:
    greedy = study(stages=[stage("encoder", "all", share=1.0)], privacy={"mechanism": "local", "epsilon": 99.0, "delta": 0.1})
    assert len(policy(stages=["decoder"], smallest_cohort=50).objections(greedy, "north")) == 4


def test_a_plan_without_this_site_is_refused() -> None:
    with pytest.raises(PlanRefused, match="has no site 'west'"):
        policy().objections(study(), "west")


@pytest.mark.parametrize(
    "bad",
    [{"epsilon": 0.0}, {"epsilon": -1.0}, {"mechanisms": []}, {"mechanisms": ["non-private"]}, {"stages": ["everything"]},
     {"smallest_cohort": 0}, {"largest_delta": 1.0}, {"epsilons": 1.0}],
)  # fmt: skip
def test_a_policy_that_bounds_nothing_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**bad)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_bound_is_nan_or_infinite(number: float) -> None:
    with pytest.raises(ValidationError):
        Policy(epsilon=number)
