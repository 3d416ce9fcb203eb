"""Real sites, real coordinator, one process: what repeats, what must not, and what one site can do to the rest."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.cohort import Cohort, Patient
from braing3n_core.errors import WaitingForSites
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.protocol import Request
from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger
from server.conduct import Reply
from server.fit import read
from simulations.federation import Tamper, federate, untouched, without_privacy
from tests.client.studies import PEOPLE, brain, patient, stage, study
from tests.golden.fit_middles import cohort
from tests.small import small_brain

NAMES = ("north", "south")
COHORTS = {
    "north": Cohort(PEOPLE, ()),
    "south": Cohort(tuple(patient(number) for number in range(10, 16)), ()),
}


def trained(plan: TrainingPlan, out: Path, tamper: Tamper = untouched) -> Brain:
    return federate(plan, out, COHORTS, lambda line: None, tamper, brain)


def same(one: Brain, other: Brain) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def epsilon(out: Path, site: str) -> float:
    with Ledger(out / "sites" / site / "ledger.jsonl", 1e-5) as ledger:
        return ledger.epsilon


def dies_after(site: str, rounds: int) -> Tamper:
    """`site` answers `rounds` rounds and is then gone for good."""
    seen = [0]

    def tamper(request: Request, reply: Reply) -> Reply | None:
        seen[0] += reply[0] == site
        return None if reply[0] == site and seen[0] > rounds else reply

    return tamper


@pytest.mark.slow
def test_without_privacy_the_same_seed_gives_the_same_model_bit_for_bit(tmp_path: Path) -> None:
    plan = without_privacy(study(rehearsal={}))
    once, again = trained(plan, tmp_path / "once"), trained(plan, tmp_path / "again")
    assert same(once, again)
    assert not same(once, brain(plan))
    assert not same(once, trained(plan.but(seed=2), tmp_path / "other"))


@pytest.mark.slow
def test_privacy_noise_never_repeats(tmp_path: Path) -> None:
    assert not same(trained(study(), tmp_path / "once"), trained(study(), tmp_path / "again"))


def test_a_whole_run_spends_the_plan_s_epsilon_and_no_more(tmp_path: Path) -> None:
    trained(study(), tmp_path)
    for site in NAMES:
        assert 0.97 * 8 <= epsilon(tmp_path, site) <= 8


@pytest.mark.slow
def test_a_site_that_dies_mid_run_takes_nobody_with_it(tmp_path: Path) -> None:
    model = trained(study(), tmp_path, dies_after("south", 1))
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    rows = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [row["replied"] for row in rows] == [["north", "south"], ["north"], ["north"], ["north"]]
    assert [row["missing"] for row in rows] == [[], ["south"], ["south"], ["south"]]


def test_without_quorum_the_run_waits_and_goes_on_when_the_site_is_back(tmp_path: Path) -> None:
    plan = study(federation={"quorum": 2, "deadline_s": 60.0})
    with pytest.raises(WaitingForSites, match="decoder, round 2: 1 of 2 sites replied, 2 are needed: south silent"):
        trained(plan, tmp_path, dies_after("south", 1))
    spent = {site: epsilon(tmp_path, site) for site in NAMES}
    trained(plan, tmp_path)
    # Both had answered round 2 before the run stopped, so both answer it again with the same bytes, at no charge.
    assert all(spent[site] < epsilon(tmp_path, site) <= 8 for site in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("number", [math.nan, math.inf, 1e30], ids=["NaN", "inf", "huge"])
def test_a_poisoned_reply_changes_nothing_but_who_replied(tmp_path: Path, number: float) -> None:
    def poisoned(request: Request, reply: Reply) -> Reply | None:
        site, header, values = reply
        return (site, header, np.full_like(values, number)) if site == "south" else reply

    plan = without_privacy(study(rehearsal={}))
    assert same(trained(plan, tmp_path / "poisoned", poisoned), trained(plan, tmp_path / "dead", dies_after("south", 0)))


@pytest.mark.slow
def test_a_second_study_on_the_same_ledgers_is_refused_and_changes_no_ledger(tmp_path: Path) -> None:
    trained(study(), tmp_path)
    second = tmp_path / "second"
    second.mkdir()
    (tmp_path / "sites").rename(second / "sites")
    before = [(second / "sites" / site / "ledger.jsonl").read_bytes() for site in NAMES]
    with pytest.raises(BudgetExhausted, match="north, south have no budget"):
        trained(study(seed=2), second)
    assert before == [(second / "sites" / site / "ledger.jsonl").read_bytes() for site in NAMES]


@pytest.mark.slow
def test_a_stage_that_learns_is_told_to_fit_better_and_the_ledgers_come_to_the_plan_s_epsilon(tmp_path: Path) -> None:
    """Two phantom hospitals that scan and age unlike the public, at an epsilon at which so few patients can be heard."""
    learned = stage("generator", "group:population", learns="mean", rounds=4, local_steps=1, sample_rate=1.0, views=4, clip=1.6,
                    learning_rate=0.3, momentum=0.0, share=1.0)  # fmt: skip
    plan = study(
        stages=[learned], sites=[{"name": name, "patients": 12} for name in NAMES],
        privacy={"mechanism": "local", "epsilon": 60.0, "delta": 1e-5, "fit_share": 0.2},
    )  # fmt: skip
    unlike = Hospital(name="north", contrast=0.1, bias=0.05, ageing=0.7, disease=0.4)
    cohorts = {name: Cohort(tuple(cohort(12, seed, unlike)), ()) for seed, name in enumerate(NAMES)}
    said = list[str]()
    federate(plan, tmp_path, cohorts, said.append)
    before, after = read(tmp_path)
    assert before.pooled.value > 0.6, "they lie far from the public's, which is at 0.5"
    assert after.pooled.value < -5 * after.pooled.noise
    assert after.verdict == "fits better than before"
    assert any(line.startswith("generator changed the loss by -0.") for line in said)
    for site in NAMES:
        assert 0.97 * 60 <= epsilon(tmp_path, site) <= 60


def test_a_comparison_without_privacy_tells_nothing(tmp_path: Path) -> None:
    telling = {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.2}
    plan = study(rehearsal={}, privacy=telling, stages=[stage("generator", "lora:1", rounds=1, share=1.0)])
    trained(without_privacy(plan), tmp_path)
    assert not (tmp_path / "fit.jsonl").exists()


def returning(number: int) -> Patient:
    """A patient who comes back after four years."""
    known = patient(number, scans=2)
    first, second = known.scans
    return dataclasses.replace(known, scans=(first, dataclasses.replace(second, conditions={**second.conditions, "age": 64.0})))


def followed(plan: TrainingPlan) -> Brain:
    model = small_brain("trajectory")
    model.years.pace.basis.normal_(generator=torch.Generator().manual_seed(1))
    return model.requires_grad_(False)


@pytest.mark.slow
def test_hospitals_whose_patients_come_back_teach_the_trajectory_its_pace_and_nothing_else(tmp_path: Path) -> None:
    pace = stage("trajectory", "group:pace", learns="mean", sample_rate=1.0, local_steps=1, learning_rate=0.5, share=1.0)
    plan = without_privacy(study(rehearsal={}, stages=[pace]))
    cohorts = {
        "north": Cohort((returning(1), returning(2), patient(3)), ()),
        "south": Cohort(tuple(patient(number) for number in range(10, 16)), ()),
    }
    made, before = federate(plan, tmp_path, cohorts, lambda line: None, untouched, followed), followed(plan)
    moved = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])}
    assert moved == {"trajectory.pace.respond.weight"}
    alone = federate(
        plan, tmp_path / "alone", cohorts | {"north": cohorts["south"]}, lambda line: None, untouched, followed
    )
    assert same(alone, before), "patients with one visit teach it nothing"


def spreading(plan: TrainingPlan) -> Brain:
    model = small_brain("spread")
    model.generator.population.basis.normal_(generator=torch.Generator().manual_seed(1))
    return model.requires_grad_(False)


@pytest.mark.slow
def test_a_spread_is_learned_after_the_mean_and_from_where_the_mean_has_come_to(tmp_path: Path) -> None:
    mean = stage("generator", "group:place", learns="mean", sample_rate=1.0, local_steps=1, learning_rate=0.25, share=0.5)
    spread = stage("spread", "all", sample_rate=1.0, local_steps=1, learning_rate=0.7, share=0.5)
    plans = {name: without_privacy(study(rehearsal={}, stages=stages)) for name, stages in
             (("both", [mean, spread]), ("alone", [spread | {"share": 1.0}]))}              # fmt: skip
    made = {name: federate(plan, tmp_path / name, COHORTS, lambda line: None, untouched, spreading)
            for name, plan in plans.items()}                 # fmt: skip
    before = spreading(plans["both"])
    moved = {name for name, tensor in made["both"].state_dict().items() if not torch.equal(tensor, before.state_dict()[name])}
    assert moved == {"generator.population.respond.weight", "generator.common.code", "spread.moves.code", "spread.logs.code"}
    assert not torch.equal(made["both"].spreading.moves.code, made["alone"].spreading.moves.code)
