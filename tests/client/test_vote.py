"""A site's vote: paid before a scan is looked at, answered once, and never with anything but noisy bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.data.cohort import Cohort, Patient, Scan
from braing3n_core.data.phantom import phantoms
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from client.site import Site
from client.vote import Ballot, votes_of
from privacy.events import RandomisedResponse
from privacy.ledger import Ledger
from tests.client.studies import study

VOTING = {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "vote_epsilon": 3.0}
PRESET = PRESETS["tiny"]


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    return torch.stack([volume for volume, _ in phantoms(PRESET, 8, 5, Hospital(name="x"))])


@pytest.fixture
def plan() -> TrainingPlan:
    return study(privacy=VOTING)


def cohort(volumes: Tensor) -> Cohort:
    """Four patients, the first with two scans, the last held out."""
    scans = [[volumes[0], volumes[1]], [volumes[2]], [volumes[3]], [volumes[4]]]
    people = [Patient(f"sub-{i}", tuple(Scan(v, {}) for v in them), held_out=i == 3) for i, them in enumerate(scans)]
    return Cohort(tuple(people), ())


def site(folder: Path, plan: TrainingPlan, volumes: Tensor) -> Site:
    return Site("north", plan, folder / "north", folder, cohort_source=lambda *_: cohort(volumes))


def ballot(plan: TrainingPlan, candidates: Tensor, round_: int = 1) -> Ballot:
    return Ballot(plan.digest, round_, candidates, 0.86)


def events(folder: Path) -> tuple[object, ...]:
    with Ledger(folder / "north" / "ledger.jsonl", 1e-5) as ledger:
        return ledger.events


def test_each_patient_has_one_vote_and_gives_it_to_the_nearest_copy(plan: TrainingPlan, volumes: Tensor) -> None:
    candidates = torch.stack([volumes[1], volumes[0], volumes[6], volumes[4], volumes[4]])
    votes = list(votes_of(cohort(volumes).patients, ballot(plan, candidates), PRESET))
    assert votes[0] in (0, 1), "two scans, two copies, one vote"
    assert votes[1:3] == [None, None]
    assert votes[3] in (3, 4), "held-out patients vote too"
    assert list(votes_of(cohort(volumes).patients, ballot(plan, volumes[6:8]), PRESET)) == [None] * 4


def test_a_vote_is_paid_for_and_repeating_it_is_free_and_the_same(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    asked = ballot(plan, volumes[4:8])
    first = site(tmp_path, plan, volumes).vote(asked).header
    assert first["kind"] == "vote"
    assert set(str(first["bits"])) <= {"0", "1"}
    assert len(str(first["bits"])) == 4
    assert events(tmp_path) == (RandomisedResponse("copies", 3.0),)
    assert first["epsilon"] == 3.0
    for _ in range(3):                                       # a lost reply cannot be asked for again until it suits
        assert site(tmp_path, plan, volumes).vote(asked).header["bits"] == first["bits"]
    assert len(events(tmp_path)) == 1


def test_what_leaves_is_bits_and_nothing_measured(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    cleared = site(tmp_path, plan, volumes).vote(ballot(plan, volumes[4:8]))
    assert cleared.values is None
    assert set(cleared.header) == {"kind", "site", "plan", "candidates", "round", "bits", "epsilon", "ledger_head"}
    logged = json.loads((tmp_path / "north" / "audit.jsonl").read_text().splitlines()[-1])
    assert logged["header"]["bits"] == cleared.header["bits"]
    assert logged["charged"]["kind"] == "RandomisedResponse"


def test_one_round_never_answers_two_ballots(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    """Else a server could send a patient's face with and without a hat until it knows."""
    site(tmp_path, plan, volumes).vote(ballot(plan, volumes[4:8]))
    answer = site(tmp_path, plan, volumes).vote(ballot(plan, volumes[4:7])).header
    assert (answer["kind"], answer["code"]) == ("refusal", "plan-refused")
    assert len(events(tmp_path)) == 1


@pytest.mark.parametrize("round_", [0, 2, 3])
def test_there_are_no_more_rounds_than_were_agreed(
    plan: TrainingPlan, volumes: Tensor, tmp_path: Path, round_: int
) -> None:
    answer = site(tmp_path, plan, volumes).vote(ballot(plan, volumes[4:8], round_)).header
    assert (answer["kind"], answer["code"]) == ("refusal", "plan-refused")
    assert events(tmp_path) == ()


def test_a_plan_without_a_vote_or_another_plan_gets_none(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    assert site(tmp_path, study(), volumes).vote(ballot(study(), volumes[4:8])).header["code"] == "plan-refused"
    assert site(tmp_path, plan, volumes).vote(ballot(study(), volumes[4:8])).header["code"] == "plan-refused"
    assert site(tmp_path, plan, volumes).vote(ballot(plan, volumes[4:8, :, :40])).header["code"] == "plan-refused"
    assert events(tmp_path) == ()


def test_a_vote_over_the_site_s_own_limit_is_not_cast(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    careful = Site("north", plan, tmp_path / "north", tmp_path, 2.0, cohort_source=lambda *_: cohort(volumes))
    assert careful.vote(ballot(plan, volumes[4:8])).header["code"] == "budget-exhausted"


def test_the_noise_of_training_leaves_room_for_the_vote(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    here = site(tmp_path, plan, volumes)
    with Ledger(tmp_path / "all.jsonl", plan.privacy.delta) as ledger:
        for stage in plan.stages:
            for number in range(stage.rounds):
                ledger.reserve(here.event(stage), f"{stage.name}/{number}", plan.privacy.epsilon)
        assert ledger.epsilon <= 5.0
        ledger.reserve(RandomisedResponse("copies", 3.0), "vote", plan.privacy.epsilon)
        assert ledger.epsilon <= 8.0


def test_a_copy_is_found_whatever_its_label_says(plan: TrainingPlan, volumes: Tensor) -> None:
    """Nobody tells a site what a candidate is: each is held against a patient's T1w and against the FLAIR."""
    people = list(cohort(volumes).patients)
    people[1] = replace(people[1], others=(Scan(volumes[6], {}, "FLAIR"),))
    of_the_flair, of_the_t1w = (torch.stack([volumes[7], volumes[place]]) for place in (6, 2))
    for candidates in (of_the_flair, of_the_t1w):
        assert list(votes_of(people, ballot(plan, candidates), PRESET)) == [None, 1, None, None]
