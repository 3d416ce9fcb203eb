"""A generator that learnt somebody by heart: copies of patients among the candidates are found, strangers are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.data.cohort import Patient, Scan
from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.phantom import phantoms
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from client.vote import Ballot, votes_of
from privacy.randomised_response import flip_probability
from server.release.calibrate import KINDS, planted, shipped
from server.release.policy import Policy

PRESET = PRESETS["tiny"]
THRESHOLD = Policy.load().rules.copies.threshold
PATIENTS = 20
DEMO = Path(__file__).parents[2] / "simulations" / "recipes" / "demo.toml"


@pytest.fixture(scope="module")
def patients() -> Tensor:
    return torch.stack([v for v, _ in phantoms(PRESET, PATIENTS, 41, Hospital(name="x", ageing=0.2, bias=0.05))])


@pytest.fixture(scope="module")
def strangers() -> Tensor:
    return torch.stack([v for v, _ in phantoms(PRESET, 10, 42, Hospital(name="y", contrast=0.05))])


def votes(patients: Tensor, candidates: Tensor) -> list[int | None]:
    people = tuple(Patient(f"sub-{i}", (Scan(volume, {}),), held_out=False) for i, volume in enumerate(patients))
    return list(votes_of(people, Ballot("p", 1, candidates, THRESHOLD), PRESET))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_found_however_it_was_hidden(patients: Tensor, strangers: Tensor, kind: str) -> None:
    copies = planted(patients, kind, PRESET, torch.Generator().manual_seed(7))
    found = votes(patients, torch.cat([copies, strangers]))
    caught = [vote == place for place, vote in enumerate(found)]
    assert sum(caught) >= 0.95 * PATIENTS


@pytest.fixture(scope="module")
def flair() -> tuple[Tensor, Tensor]:
    """Of as many patients, and of strangers in another hospital."""
    wishes, places = Wishes(modalities=("FLAIR",)), ((PATIENTS, 41, 0.0), (10, 42, 0.05))
    seen = [people(PRESET, count, seed, Hospital(name="x", contrast=c), wishes) for count, seed, c in places]
    ours, theirs = (torch.stack([one.visits[0].images["FLAIR"][None] for one in group]) for group in seen)
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "stranger"])
def test_a_copy_of_a_flair_is_found_and_a_stranger_is_not(flair: tuple[Tensor, Tensor], kind: str) -> None:
    ours, strangers = flair
    hidden = [planted(ours, kind, PRESET, torch.Generator().manual_seed(7), "FLAIR")] if kind != "stranger" else []
    candidates = torch.cat([*hidden, strangers])
    patients = [Patient(f"sub-{i}", (), False, (Scan(volume, {}, "FLAIR"),)) for i, volume in enumerate(ours)]
    found = list(votes_of(patients, Ballot("p", 1, candidates, THRESHOLD), PRESET))
    if hidden:
        assert sum(vote == place for place, vote in enumerate(found)) >= 0.95 * PATIENTS
    else:
        assert found == [None] * PATIENTS


def test_a_t1w_is_nobody_s_flair(patients: Tensor, flair: tuple[Tensor, Tensor]) -> None:
    """Other people's images of the other modality raise no alarm, whichever way round."""
    ours = [Patient(f"sub-{i}", (), False, (Scan(volume, {}, "FLAIR"),)) for i, volume in enumerate(flair[0])]
    assert list(votes_of(ours, Ballot("p", 1, patients, THRESHOLD), PRESET)) == [None] * PATIENTS
    assert votes(patients, flair[1]) == [None] * PATIENTS


def test_strangers_are_left_alone(patients: Tensor, strangers: Tensor) -> None:
    assert votes(patients, strangers) == [None] * PATIENTS


def test_the_shipped_numbers_are_for_the_shipped_threshold_and_good_enough() -> None:
    reference = shipped()
    assert reference.threshold == THRESHOLD
    assert set(reference.caught) == set(KINDS)
    assert all(part >= 0.95 for part in reference.caught.values())
    assert reference.false_alarm <= 1e-3
    assert sum(reference.pairs) == reference.people * reference.others


def test_the_demo_drops_nineteen_copies_in_twenty_after_its_sites_answers_were_flipped() -> None:
    lost = flip_probability(TrainingPlan.load(DEMO).privacy.vote_epsilon)
    assert all(part * (1 - lost) >= 0.95 for part in shipped().caught.values())
