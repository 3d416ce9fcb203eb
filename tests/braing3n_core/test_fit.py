"""What a plan pays for being told how well a model fits, on which scale, and that no patient moves another's loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from braing3n_core.charges import charges, everything
from braing3n_core.errors import PlanRefused
from braing3n_core.fit import losses, readings, scale_of
from braing3n_core.plan import StageName, TrainingPlan
from braing3n_core.training import prepare
from privacy.accountant import epsilon
from privacy.bounded_sum import UNITS
from privacy.egress import ENDS, FIT_STAGE
from privacy.events import SampledGaussian
from tests.client.studies import brain, patient, study
from tests.small import small_brain, stage

NAMES: tuple[StageName, ...] = ("encoder", "decoder", "generator", "spread", "trajectory", "contrast")


def told(share: float = 0.05, **changes: Any) -> TrainingPlan:
    return study(privacy={"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": share} | changes)


def test_a_plan_that_tells_no_fit_keeps_its_bytes() -> None:
    assert "fit_share" not in study().canonical()
    assert told(0.0).digest == study().digest
    assert told().digest != study().digest
    assert TrainingPlan.from_json(told().canonical()) == told()


def test_a_plan_that_tells_no_fit_keeps_its_noise_to_the_bit() -> None:
    plain = charges(study(), ())
    assert FIT_STAGE not in plain
    assert plain == charges(told(0.0), ())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_what_is_told_is_part_of_the_budget_and_the_accountant_says_the_same(share: float) -> None:
    plan = told(share)
    costs, events = charges(plan, ()), everything(plan, ())
    paid = costs[FIT_STAGE]
    assert isinstance(paid, SampledGaussian)
    assert (paid.sample_rate, paid.steps) == (1.0, 1)
    assert events.count(paid) == 4 == len(readings(plan)), "one before and one after each of two stages"
    assert 0.99 * 8 <= epsilon(events, 1e-5) <= 8
    # Shares are of squared privacy loss: mu^2 = rate^2 steps / sigma^2.
    loss = {stage.name: stage.sample_rate**2 * stage.rounds * stage.local_steps / costs[stage.name].noise_multiplier ** 2  # type: ignore[union-attr]  # all Gaussian
            for stage in plan.stages}                        # fmt: skip
    own = 4 / paid.noise_multiplier**2
    assert own / (own + sum(loss.values())) == pytest.approx(share)
    assert loss["decoder"] == pytest.approx(loss["generator"])


def test_training_is_louder_by_what_is_told_and_by_no_more() -> None:
    plain, with_fit = (charges(plan, ())["decoder"].noise_multiplier for plan in (study(), told(0.02)))  # type: ignore[union-attr]  # Gaussian
    assert 1 < with_fit / plain < 1.03


@pytest.mark.slow
def test_a_fit_and_a_census_share_one_budget() -> None:
    stages = [one.model_dump(mode="json") | {"share": 0.45} for one in study().stages]
    plan = told(0.1).but(stages=stages, census={"share": 0.1})
    assert 0.99 * 8 <= epsilon(everything(plan, ()), 1e-5) <= 8
    assert len({event for event in everything(plan, ()) if isinstance(event, SampledGaussian)}) == 4


def test_a_plan_with_secure_sums_tells_no_site_s_own_number() -> None:
    summed = {"fallback_epsilon": 9.0, "dropped": 0, "colluding": 0}
    with pytest.raises(PlanRefused, match="which a secure sum promises to hide; leave fit_share out"):
        told(mechanism="secure-sum", secure_sum=summed)


def test_a_rehearsal_without_privacy_is_told_nothing() -> None:
    bare = {"mechanism": "non-private", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.1}
    plan = study(privacy=bare, rehearsal={})
    assert readings(plan) == []
    assert FIT_STAGE not in charges(plan, ())


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_is_public_and_a_patient_who_is_not_there_is_its_middle(name: StageName) -> None:
    before, after = (scale_of(name, end) for end in ENDS)
    assert before.told(0, 100) == before.middle == before.reach
    assert before.told(-100 * UNITS, 100) == pytest.approx(0)
    assert after.told(0, 100) == 0
    assert after.reach == before.middle / 2
    assert after.told(-50 * UNITS, 100) == pytest.approx(-after.reach / 2)
    assert after.deviation(3.0, 100) == pytest.approx(3 * after.reach / 100)
    assert after.deviation(3.0, 300, 3) == pytest.approx(after.deviation(3.0, 100) / math.sqrt(3))


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_nobody_s_loss_depends_on_who_else_is_there(name: StageName) -> None:
    plan, model = stage(name), brain(study())
    people = [prepare(name, model, patient(number, scans=1 + number % 3).scans) for number in range(4)]
    together = losses(model, plan, people)
    assert together == losses(model, plan, people), "no luck in it"
    assert losses(model, plan, people[1:]) == together[1:]
    assert losses(model, plan, people[::-1]) == together[::-1]
    assert len(set(together)) == 4
    assert all(math.isfinite(one) for one in together)


def test_who_has_nothing_that_a_stage_learns_from_is_left_out() -> None:
    model = small_brain("trajectory")
    single = patient(1)
    first, second = patient(2, scans=2).scans
    returning = (first, replace(second, conditions={**second.conditions, "age": 64.0}))
    people = [prepare("trajectory", model, single.scans), prepare("trajectory", model, returning)]
    assert losses(model, stage("trajectory"), people) == losses(model, stage("trajectory"), people[1:])
    assert len(losses(model, stage("trajectory"), people)) == 1
