"""Whole runs by secure sums in one process: the sites and the server that Flower carries, who drops out or dies, the cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server.sum_round as module
from braing3n_core.data.cohort import Cohort
from braing3n_core.errors import IntegrityError, PlanRefused, WaitingForSites
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request
from privacy.accountant import epsilon_alone
from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger
from server.conduct import Reply
from server.lost_sums import LostSum, lost_sums
from simulations.federation import Tamper, federate, untouched, without_privacy
from simulations.mechanisms import with_mechanism
from tests.client.studies import PEOPLE, brain, patient, stage
from tests.summed import NAMES, initial, summed

pytestmark = pytest.mark.slow                                # each takes rounds
PLAN = summed()
MANY = summed(("north", "south", "east", "west"), dropped=1)
NOBODY = Cohort((patient(1, held_out=True),), ())


def trained(plan: TrainingPlan, out: Path, tamper: Tamper = untouched, cohort: Cohort | None = None) -> list[dict[str, Any]]:
    cohorts = dict.fromkeys((site.name for site in plan.sites), cohort or Cohort(PEOPLE, ()))
    federate(plan, out, cohorts, lambda line: None, tamper, brain)
    return [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


def spent(out: Path, site: str) -> tuple[int, float, float]:
    with Ledger(out / "sites" / site / "ledger.jsonl", 1e-5) as ledger:
        return len(ledger.events), ledger.epsilon, epsilon_alone(ledger.events, 1e-5)


def lost(site: str, step: str, times: int = 10**9, number: int = 1) -> Tamper:
    """What `site` says in this step of round `number` never comes, so many times."""
    left = [times]

    def tamper(request: Request, reply: Reply) -> Reply | None:
        hit = request.part is not None and (reply[0], request.part.step, request.round) == (site, step, number) and left[0] > 0
        left[0] -= hit
        return None if hit else reply

    return tamper


def test_a_whole_run_spends_the_plan_s_epsilon_and_says_what_each_round_took(tmp_path: Path) -> None:
    rows = trained(PLAN, tmp_path)
    for name in NAMES:
        rounds, epsilon, alone = spent(tmp_path, name)
        assert rounds == 2
        assert 0.97 * 4 <= epsilon <= 4 < alone <= 12
        assert rows[-1]["epsilon"][name] == epsilon
    assert [row["messages"] for row in rows] == [2 * 5 * 3] * 2
    assert all(row["seconds"] >= 0 for row in rows)
    assert [row["replied"] for row in rows] == [sorted(NAMES)] * 2


@pytest.mark.parametrize("step", ["keys", "letters", "numbers", "story", "shares"])
def test_a_site_that_vanishes_at_any_step_takes_nobody_with_it(tmp_path: Path, step: str) -> None:
    rows = trained(MANY, tmp_path, lost("west", step))
    gone = ["west"] if step in ("keys", "letters", "numbers") else []
    assert [row["missing"] for row in rows] == [gone, []]
    assert {spent(tmp_path, name)[0] for name in NAMES} == {2}
    assert all(spent(tmp_path, site.name)[1] <= 4 for site in MANY.sites)


@pytest.mark.parametrize(("step", "charged"), [("keys", 0), ("letters", 0), ("numbers", 1), ("story", 1), ("shares", 1)])
def test_below_the_threshold_the_run_waits_and_goes_on_without_paying_twice(tmp_path: Path, step: str, charged: int) -> None:
    with pytest.raises(WaitingForSites, match=f"2 of 3 sites took step '{step}'"):
        trained(PLAN, tmp_path, lost("east", step))
    assert {spent(tmp_path, name)[0] for name in NAMES} == {charged}
    rows = trained(PLAN, tmp_path)
    assert {spent(tmp_path, name)[0] for name in NAMES} == {2}
    assert [row["replied"] for row in rows] == [sorted(NAMES)] * 2


@pytest.mark.parametrize("code", ["ledger-busy", "internal", "interrupted"])
def test_a_word_that_may_change_keeps_what_the_others_have_paid_for(tmp_path: Path, code: str) -> None:
    def refusing(request: Request, reply: Reply) -> Reply | None:
        if request.part is not None and (reply[0], request.part.step, request.round) == ("east", "numbers", 1):
            return "east", {"kind": "refusal", "code": code}, None
        return reply

    with pytest.raises(WaitingForSites, match=f"east refused .{code}"):
        trained(PLAN, tmp_path, refusing)
    trained(PLAN, tmp_path)
    assert {spent(tmp_path, name)[0] for name in NAMES} == {2}


class Killed(BaseException):
    """The server dies here."""


@pytest.mark.parametrize("step", ["keys", "letters", "numbers", "story", "shares"])
def test_a_server_that_dies_in_any_step_takes_the_round_up_and_nobody_pays_twice(tmp_path: Path, step: str) -> None:
    def tamper(request: Request, reply: Reply) -> Reply | None:
        if request.part is not None and (reply[0], request.part.step, request.round) == ("south", step, 2):
            raise Killed
        return reply

    with pytest.raises(Killed):
        trained(PLAN, tmp_path, tamper)
    trained(PLAN, tmp_path)
    assert {spent(tmp_path, name)[0] for name in NAMES} == {2}


def forgetful(out: Path) -> Tamper:
    """East loses what it knows of the first sum, after its letters: the others pay, and nobody can open their sum."""

    def tamper(request: Request, reply: Reply) -> Reply | None:
        part = request.part
        if part is not None and (reply[0], part.step, part.attempt, request.round) == ("east", "letters", 1, 1):
            (kept,) = (out / "sites" / "east" / "sums").iterdir()
            kept.unlink()
        return reply

    return tamper


def test_a_site_that_lost_what_it_knew_of_a_sum_ends_the_attempt_and_another_is_paid(tmp_path: Path) -> None:
    """Its numbers are in nobody's sum: the others have paid for theirs, and a round more than planned is over the budget."""
    plan = summed(stages=[stage("decoder", "group:style", local_steps=1, share=1.0, rounds=1)])
    cheap = {"epsilon": 40.0, "secure_sum": {"fallback_epsilon": 99.0, "dropped": 0, "colluding": 1}}
    with pytest.raises(BudgetExhausted, match=r"have no budget.*1 secure sums were paid and lost, and a plan with spare = 1"):
        trained(plan.but(privacy=plan.privacy.model_dump() | cheap), tmp_path, forgetful(tmp_path))
    assert [spent(tmp_path, name)[0] for name in NAMES] == [1, 1, 0]
    assert lost_sums(tmp_path / "checkpoints") == (LostSum(stage="decoder", round=1, attempt=1, paid=("north", "south")),)


def spared(plan: TrainingPlan, spare: int) -> TrainingPlan:
    rests_on = plan.privacy.secure_sum
    assert rests_on is not None
    return plan.but(privacy=plan.privacy.model_copy(update={"secure_sum": rests_on.model_copy(update={"spare": spare})}))


def test_a_spare_round_takes_the_place_of_a_sum_that_was_lost_and_the_budget_holds(tmp_path: Path) -> None:
    """Without it the second round would find no budget: calibration knew of no third charge."""
    with pytest.raises(BudgetExhausted):
        trained(PLAN, tmp_path / "none", forgetful(tmp_path / "none"))
    rows = trained(spared(PLAN, 1), tmp_path / "one", forgetful(tmp_path / "one"))
    assert [row["replied"] for row in rows] == [sorted(NAMES)] * 2
    for name, paid in zip(NAMES, (3, 3, 2), strict=True):
        rounds, epsilon, alone = spent(tmp_path / "one", name)
        assert (rounds, rows[-1]["epsilon"][name]) == (paid, epsilon)
        assert epsilon <= 4 < alone <= 12
    assert spent(tmp_path / "one", "north")[1] >= 0.97 * 4, "of the agreed epsilon, the spare round and all"
    assert len(lost_sums(tmp_path / "one" / "checkpoints")) == 1


def test_a_spare_round_that_nobody_needed_is_not_spent(tmp_path: Path) -> None:
    trained(spared(PLAN, 2), tmp_path)
    assert {spent(tmp_path, name)[0] for name in NAMES} == {2}
    assert all(spent(tmp_path, name)[1] < 0.9 * 4 for name in NAMES), "noise for four rounds, charged for two"
    assert lost_sums(tmp_path / "checkpoints") == ()


def test_a_plan_with_as_many_spare_rounds_as_failures_is_no_licence_for_more(tmp_path: Path) -> None:
    def ever(request: Request, reply: Reply) -> Reply | None:
        if request.part is not None and (reply[0], request.part.step) == ("east", "letters"):
            (kept,) = (tmp_path / "sites" / "east" / "sums").iterdir()
            kept.unlink()
        return reply

    with pytest.raises(WaitingForSites, match="0 of 3 sites stayed in one of 3 sums"):
        trained(spared(PLAN, 1), tmp_path, ever)
    with pytest.raises(BudgetExhausted, match="3 secure sums were paid and lost, and a plan with spare = 4"):
        trained(spared(PLAN, 1), tmp_path, ever)
    assert [spent(tmp_path, name)[0] for name in NAMES] == [3, 3, 0]
    assert all(spent(tmp_path, name)[1] <= 4 for name in NAMES)


def test_spare_rounds_are_in_the_digest_and_a_plan_without_them_keeps_its_own() -> None:
    assert spared(PLAN, 0).digest == PLAN.digest != spared(PLAN, 1).digest
    assert "spare" not in PLAN.canonical()
    assert TrainingPlan.from_json(spared(PLAN, 1).canonical()) == spared(PLAN, 1)


def test_numbers_that_a_network_changed_stop_the_run_and_change_nothing(tmp_path: Path) -> None:
    def changed(request: Request, reply: Reply) -> Reply | None:
        site, header, values = reply
        if values is None or site != "south":
            return reply
        return site, header, values ^ np.random.default_rng(0).integers(0, 2**32, len(values), dtype=np.uint32)

    with pytest.raises(IntegrityError, match="spoiled by one of them or on the way"):
        trained(PLAN, tmp_path, changed)
    assert not list((tmp_path / "checkpoints").glob("stage-*"))
    with pytest.raises(BudgetExhausted):                     # a round was wasted, so the last one cannot be paid
        trained(PLAN, tmp_path)


@pytest.mark.parametrize("how", [np.zeros, lambda size: np.full(size, 1e9)])
def test_only_what_patients_and_noise_can_make_is_plausible(how: Callable[[int], np.ndarray]) -> None:
    terms = module._terms(module.Coordinator(PLAN, initial(PLAN.canonical())), 1)
    total = how(terms.size)
    if total.any():
        with pytest.raises(module.SumRefused):
            module.refuse_implausible(total, terms)
    else:
        module.refuse_implausible(total, terms)
    with pytest.raises(module.SumRefused):
        module.refuse_implausible(total * math.nan, terms)


def shift(plan: TrainingPlan, out: Path) -> np.ndarray:
    """What one round moved, without a patient: noise alone, over the learning rate."""
    cohorts = dict.fromkeys((site.name for site in plan.sites), NOBODY)
    model = federate(plan, out, cohorts, lambda line: None, untouched, brain)
    before = brain(plan).generator.state_dict()
    moved = [after - before[name] for name, after in model.generator.state_dict().items()]
    flat = np.concatenate([part.flatten().numpy() for part in moved])
    return flat[flat != 0] / plan.stages[0].learning_rate


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_at_equal_epsilon_the_aggregate_of_a_real_run_has_root_n_less_noise(tmp_path: Path, epsilon: float) -> None:
    """Eight sites, none of whom colludes: theory says sqrt(8) = 2.83, Renyi accounting of the sum costs up to an eighth."""
    names = ("a", "b", "c", "d", "e", "f", "g", "h")
    one = stage("generator", "all", local_steps=1, rounds=1, share=1.0, sample_rate=0.5)
    plan = summed(names, colluding=0, stages=[one])
    rests_on = {"secure_sum": {"fallback_epsilon": 900.0, "dropped": 0, "colluding": 0}}
    sums = plan.but(privacy=plan.privacy.model_dump() | {"epsilon": epsilon} | rests_on)
    local = sums.but(privacy={"mechanism": "local", "epsilon": epsilon, "delta": 1e-5})
    ratio = shift(local, tmp_path / "local").std() / shift(sums, tmp_path / "sums").std()
    assert 0.85 * math.sqrt(8) < ratio < 1.02 * math.sqrt(8)


def test_a_recipe_under_another_mechanism_takes_as_many_steps_at_the_same_budget() -> None:
    local = summed(
        privacy={"mechanism": "local", "epsilon": 4.0, "delta": 1e-5}, rehearsal={},
        federation={"quorum": 1, "deadline_s": 60.0},
        stages=[stage("decoder", "group:style", rounds=3, local_steps=4, share=1.0)],
    )  # fmt: skip
    sums = with_mechanism(local, "secure-sum")
    assert (sums.stages[0].rounds, sums.stages[0].local_steps, sums.federation.quorum) == (12, 1, 3)
    assert sums.federation.optimizer is not None
    assert sums.federation.optimizer.momentum == local.stages[0].momentum
    assert sums.privacy.secure_sum is not None
    assert sums.privacy.epsilon == 4.0 < sums.privacy.secure_sum.fallback_epsilon < 12
    assert with_mechanism(sums, "secure-sum") is sums
    assert without_privacy(sums).privacy.secure_sum is None
    assert with_mechanism(sums, "local").privacy.mechanism == "local"
    with pytest.raises(PlanRefused, match="rehearsals only"):
        with_mechanism(local.but(rehearsal=None), "non-private")
    with pytest.raises(PlanRefused, match="at least two sites"):
        with_mechanism(local.but(sites=[{"name": "north", "patients": 8}]), "secure-sum")


