"""The utility law against the noise of rounds: the shipped road adds what the law says, and a fault in either would show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from braing3n_core.law import mu, noise_over_clip
from braing3n_core.plan import TrainingPlan
from simulations.frontier.points import Consortium
from simulations.law import Case, Row, as_json, cases, measure, picture, plan_of, told

DEMO = TrainingPlan.load(Path(__file__).parents[2] / "simulations" / "recipes" / "demo.toml")
USUAL = Case("local", "generator", "group:population", Consortium(3, 100), 3.0)


def row(case: Case, ratio: float, multiplier: float = 4.0) -> Row:
    law = noise_over_clip(case.mechanism, 256, 3, 100, mu(case.epsilon, 1e-4))
    return Row(case, 256, multiplier, 4, law, ratio * law, 0.001)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["local", "secure-sum"])
def test_rounds_add_the_noise_of_the_law(mechanism: str) -> None:
    (found,) = measure(DEMO, [replace(USUAL, mechanism=mechanism)], 8, lambda text: None)  # type: ignore[arg-type]
    assert found.weights == 256
    assert found.within


def test_what_is_outside_the_stated_tolerance_is_said_to_be() -> None:
    sums, sampled = replace(USUAL, mechanism="secure-sum"), replace(USUAL, rate=0.1)
    assert [row(USUAL, ratio).within for ratio in (0.9, 1.0, 1.1)] == [False, True, False]
    assert [row(sums, ratio).within for ratio in (0.9, 1.1, 1.3)] == [False, True, False]
    assert row(sampled, 1.1).within
    assert row(sampled, 2.0, multiplier=0.6).within is None, "sampled steps of little noise are left out of the law"
    rows = [row(USUAL, 1.1), row(sums, 1.1), row(sampled, 2.0, 0.6)]
    assert [line.split("  ")[-1] for line in list(told(rows))[1:]] == [
        "0.96 to 1.04, OUTSIDE", "0.96 to 1.2, within", "no claim"]  # fmt: skip
    assert [each["within"] for each in json.loads(as_json(rows))] == [False, True, None]
    assert picture(rows).startswith(b"\x89PNG")


def test_every_case_varies_one_thing_and_spends_what_it_says() -> None:
    asked = list(cases())
    assert len(asked) == len(set(asked))
    plan = plan_of(DEMO, replace(USUAL, rate=0.25, steps=100))
    (stage,) = plan.stages
    assert (stage.local_steps, stage.sample_rate, stage.share, stage.learning_rate) == (100, 0.25, 1.0, 1.0)
    assert plan.privacy.training == 3.0
