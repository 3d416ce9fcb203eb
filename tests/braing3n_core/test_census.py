"""Bins are the plan's, every patient is in one of each, and people drawn from the census look like those counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.census import counted_variables, drawn, pooled, row_of, sizes
from braing3n_core.charges import charges, everything
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.plan import Categorical, Continuous, TrainingPlan
from privacy.accountant import epsilon
from privacy.marginals import counted
from tests.client.studies import stage, study
from tests.summed import summed

STAGES = [stage("decoder", "group:style", share=0.4), stage("generator", "lora:1", share=0.55)]
CENSUS = {"share": 0.05, "bins": 5, "variables": ["age", "sex", "diagnosis"]}
PLAN = study(stages=STAGES, census=CENSUS)
AGE, SEX = PLAN.variables[0], PLAN.variables[1]
values = st.none() | st.floats(allow_nan=True) | st.sampled_from(["F", "M", "healthy", "dementia", "?"])


def test_bins_follow_from_the_plan_alone() -> None:
    assert [variable.name for variable in counted_variables(PLAN)] == ["age", "sex", "diagnosis"]
    assert sizes(PLAN) == (6, 3, 5)
    assert sizes(study(stages=STAGES, census={"share": 0.05})) == (9, 3, 5, 2, 9, 9)
    with pytest.raises(PlanRefused, match="takes no census"):
        sizes(study())


@given(st.fixed_dictionaries({"age": values, "sex": values, "diagnosis": values}))
def test_every_patient_is_in_exactly_one_bin_of_each_variable(conditions: dict[str, object]) -> None:
    row = row_of(conditions, PLAN)  # type: ignore[arg-type]  # wrong values are the test
    assert counted([row], sizes(PLAN)).values.sum() == 3


def test_edges_of_a_range_belong_to_it_and_what_is_unknown_has_its_own_bin() -> None:
    rows = [row_of({"age": age, "sex": "M", "diagnosis": "healthy"}, PLAN) for age in (18.0, 33.3, 33.5, 95.0, 95.1, None)]
    assert [row[0] for row in rows] == [0, 0, 1, 4, 5, 5]
    assert row_of({}, PLAN) == (5, 2, 4)


def test_shares_are_what_was_counted_up_to_noise_clamped_and_without_the_unknown() -> None:
    told = {"north": [10, 0, -4, 2, 0, 99, *(3, 9, 5), *(-1, -1, -1, -1, 7)],
            "south": [10, 4, -4, 2, 0, 99, *(1, 3, 5), *(-1, -1, -1, 0, 7)]}  # fmt: skip
    shares = pooled(PLAN, told)
    assert shares["age"] == pytest.approx((20 / 28, 4 / 28, 0.0, 4 / 28, 0.0))
    assert shares["sex"] == pytest.approx((0.25, 0.75))
    assert "diagnosis" not in shares, "noise left nothing of it"


def test_a_site_that_tells_another_number_of_counts_is_refused() -> None:
    with pytest.raises(IntegrityError, match="has 13 counts and the plan 14"):
        pooled(PLAN, {"north": [1] * 13})


def test_people_are_drawn_as_they_were_counted() -> None:
    parts = (np.arange(2000) + 0.5) / 2000
    ages = [drawn(AGE, (0.5, 0.0, 0.5), float(part)) for part in parts]
    assert isinstance(AGE, Continuous)
    width = (AGE.high - AGE.low) / 3
    assert sum(age < AGE.low + width for age in ages) == 1000  # type: ignore[operator]  # a continuous variable's are numbers
    assert not [age for age in ages if AGE.low + width + 0.01 < age < AGE.high - width - 0.01]  # type: ignore[operator]
    assert Counter(drawn(SEX, (0.25, 0.75), float(part)) for part in parts) == {"F": 500, "M": 1500}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda row: sum(row) > 1e-6), st.floats(0, 1, exclude_max=True))
def test_nobody_is_drawn_outside_the_plan(row: list[float], part: float) -> None:
    shares = [share / sum(row) for share in row]
    variable = Continuous(kind="continuous", name="age", unit="year", low=18.0, high=95.0)
    value = drawn(variable, shares, part)
    assert isinstance(value, float)
    assert 18.0 <= value <= 95.0
    levels = Categorical(kind="categorical", name="x", levels=tuple(f"l{n}" for n in range(len(shares))))
    level = drawn(levels, shares, part)
    assert shares[levels.levels.index(str(level))] > 0


def test_the_census_has_its_share_of_the_budget_and_the_whole_stays_within_it() -> None:
    assert 0.98 * 8 <= epsilon(everything(PLAN, ()), 1e-5) <= 8
    event = charges(PLAN, ())["census"]
    assert (event.sample_rate, event.steps) == (1.0, 1)  # type: ignore[union-attr]  # a plan with a mechanism
    assert epsilon([event], 1e-5) < 2.0
    pairs = [charges(plan, ())["generator"] for plan in (study(stages=[STAGES[0] | {"share": 0.45}, STAGES[1]]), PLAN)]
    assert pairs[0] != pairs[1], "what the census takes is taken from training"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"census": CENSUS}, "census included, add up to 1.05"),
        ({"stages": STAGES, "census": CENSUS | {"variables": ["agee"]}}, "did you mean 'age'"),
        ({"release": {"seed": 1, "follow": "census", "cells": [{"count": 1, "conditions": {}}]}}, "the plan takes none"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(PlanRefused, match=words):
        study(**changes)


def test_secure_sums_take_no_census() -> None:
    with pytest.raises(PlanRefused, match="takes no census; leave"):
        summed(stages=[stage("decoder", "group:style", local_steps=1, share=0.9)], census={"share": 0.1})


def test_plans_without_a_census_keep_their_digest_and_those_with_one_read_back() -> None:
    assert "census" not in study().canonical()
    assert "follow" not in study().canonical()
    assert TrainingPlan.from_json(PLAN.canonical()) == PLAN
