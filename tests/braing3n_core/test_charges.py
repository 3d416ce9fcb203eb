"""What a plan's rounds cost is the same wherever it is asked, and sums that are worth too little alone are refused."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from braing3n_core import charges as module
from braing3n_core.charges import _noise, charges, everything, refuse_weak_fallback, secure_sum, terms, votes
from braing3n_core.errors import PlanRefused
from privacy.accountant import calibrate, epsilon, epsilon_alone
from privacy.events import NonPrivate, RandomisedResponse, SampledGaussian, SecureSummed
from tests.client.studies import rehearsal, site, study
from tests.summed import summed

ROOT = Path(__file__).parents[2]
SIZES = (32,)
PLAN = summed()


def test_all_rounds_together_spend_what_the_plan_keeps_for_training() -> None:
    for plan, sizes in ((PLAN, SIZES), (study(), ())):
        events = everything(plan, sizes)
        assert len(events) == sum(stage.rounds for stage in plan.stages)
        assert 0.98 * plan.privacy.training <= epsilon(events, plan.privacy.delta) <= plan.privacy.training


def test_each_mechanism_has_its_event() -> None:
    assert {type(cost) for cost in charges(study(), ()).values()} == {SampledGaussian}
    assert {type(cost) for cost in charges(PLAN, SIZES).values()} == {SecureSummed}
    assert set(charges(rehearsal(), ()).values()) == {NonPrivate("decoder"), NonPrivate("generator")}


@pytest.mark.slow
@pytest.mark.parametrize("factor", [[0.5], [0.99], [2.0], [float("nan")], [0.0], [-1.0], []], ids=str)
def test_noise_that_was_kept_is_used_only_if_it_spends_what_it_should(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factor: list[float]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows, target, delta = ((0.1, 10, 0.5), (0.2, 5, 0.5)), 4.0, 1e-5
    right = calibrate(rows, target, delta)
    _noise.cache_clear()
    assert _noise(rows, target, delta) == right
    kept = [sigma * one for sigma in right for one in factor]
    monkeypatch.setattr(module, "kept", lambda *_: {"sigma": torch.tensor(kept, dtype=torch.float64)})
    _noise.cache_clear()
    assert _noise(rows, target, delta) == right
    monkeypatch.setattr(module, "kept", lambda *_: {"sigma": torch.tensor(right, dtype=torch.float64)})
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("calibrated although the right noise was kept"))
    _noise.cache_clear()
    assert _noise(rows, target, delta) == right
    _noise.cache_clear()


def test_terms_are_the_plan_s_and_name_the_sum() -> None:
    agreed = terms(PLAN, SIZES, PLAN.stages[0], 2, 3)
    assert agreed.context == f"{PLAN.digest}/decoder/2/3"
    assert (agreed.sites, agreed.threshold, agreed.size, agreed.scale) == (("north", "south", "east"), 3, 32, 2.0**14)
    cost = charges(PLAN, SIZES)["decoder"]
    assert cost == agreed.event("decoder", PLAN.stages[0].sample_rate)
    assert isinstance(cost, SecureSummed)
    assert cost.shares == 2, "one of three may collude"


def test_the_fallback_is_what_one_share_of_everything_is_worth() -> None:
    alone = epsilon_alone(everything(PLAN, SIZES), 1e-5)
    for stated, fits in ((1.001 * alone, True), (0.999 * alone, False)):
        rests_on = secure_sum(PLAN).model_copy(update={"fallback_epsilon": stated})
        plan = PLAN.but(privacy=PLAN.privacy.model_copy(update={"secure_sum": rests_on}))
        if fits:
            refuse_weak_fallback(plan, SIZES)
        else:
            with pytest.raises(PlanRefused, match="by itself, more than fallback_epsilon"):
                refuse_weak_fallback(plan, SIZES)
    refuse_weak_fallback(study(), ())


def test_a_vote_is_part_of_everything_and_of_the_fallback() -> None:
    voting = PLAN.but(privacy=PLAN.privacy.model_dump() | {"vote_epsilon": 1.0})
    assert votes(voting) == [RandomisedResponse("copies", 1.0)]
    assert epsilon(everything(voting, SIZES), 1e-5) <= 4


def test_a_scale_that_does_not_fit_into_32_bits_is_refused_as_the_plan_s() -> None:
    fine = PLAN.but(privacy=PLAN.privacy.model_dump() | {"secure_sum": secure_sum(PLAN).model_dump() | {"grid": 2**20}},
                    sites=[{"name": name, "patients": 2000} for name in ("north", "south", "east")])  # fmt: skip
    with pytest.raises(PlanRefused, match="32 bits"):
        charges(fine, SIZES)
    with pytest.raises(PlanRefused, match="takes no secure sums"):
        terms(study(), SIZES, study().stages[0], 1, 1)


def test_a_site_charges_what_the_plan_says_it_will(tmp_path: Path) -> None:
    plan = study()
    here = site(tmp_path, plan)
    assert {stage.name: here.event(stage) for stage in plan.stages} == charges(plan, ())


@pytest.mark.slow
def test_noise_is_calibrated_in_one_place() -> None:
    callers = {
        path.relative_to(ROOT).as_posix()
        for package in ("braing3n_core", "client", "server", "simulations")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "calibrate"
    }
    # The audit is at an epsilon of its own.
    assert callers == {"braing3n_core/charges.py", "simulations/audit.py"}
