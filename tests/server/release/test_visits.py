"""A release with several visits of each person: whole people pass or fall, tables are BIDS, and verification counts images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import GateBlocked, PlanRefused
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import load_prior
from client.rating import ImageRating
from privacy.signing import SigningKey
from server.release.candidates import candidates, chosen
from server.release.cohort import Person, draw, in_words, seen
from server.release.dataset import write_dataset
from server.release.policy import Policy
from server.release.publish import publish
from server.release.seal import seal
from server.release.verify import verify
from tests.server.release.hospitals import EDITION, Hospitals

VISITS, YEARS = 3, 2.5
CELLS = [
    {"count": 2, "visits": VISITS, "years": YEARS, "conditions": {"age": [60, 80], "sex": ["F"], "ventricles": [20, 40]}},
    {"count": 1, "conditions": {"age": [30, 40]}},
]


@pytest.fixture(scope="module")
def longer(plan: TrainingPlan) -> TrainingPlan:
    return plan.but(release={"seed": 5, "steps": 2, "cells": CELLS})


def images_of(plan: TrainingPlan) -> list[Person]:
    persons = draw(plan.release, plan.variables)
    cells = [cell for cell in plan.release.cells for _ in range(cell.count)]
    return [visit for person, cell in zip(persons, cells, strict=True) for visit in seen(person, cell)]


def test_a_plan_without_visits_says_nothing_of_them_and_keeps_its_digest(plan: TrainingPlan) -> None:
    assert "visits" not in plan.canonical()
    assert not plan.longitudinal
    cells = [cell.model_dump(mode="json") | {"visits": 1} for cell in plan.release.cells]
    assert plan.but(release=plan.release.model_dump(mode="json") | {"cells": cells}).digest == plan.digest


def test_visits_are_in_the_plan_and_in_its_digest(longer: TrainingPlan, plan: TrainingPlan) -> None:
    assert longer.longitudinal
    assert TrainingPlan.from_json(longer.canonical()) == longer
    other = [CELLS[0] | {"years": 3.0}, CELLS[1]]
    assert plan.but(release={"seed": 5, "steps": 2, "cells": other}).digest != longer.digest


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"visits": 10, "years": 2.5}, "beyond the 20 years"),
        ({"visits": 1, "years": 2.0}, "there is one"),
        ({"visits": 0}, "greater"),
    ],
)
def test_what_no_trajectory_can_make_is_refused(plan: TrainingPlan, changes: dict[str, object], why: str) -> None:
    with pytest.raises(PlanRefused, match=why):
        plan.but(release={"seed": 5, "cells": [CELLS[0] | changes]})


def test_nobody_grows_older_than_the_generator_knows(plan: TrainingPlan) -> None:
    old = plan.but(release={"seed": 5, "cells": [CELLS[0] | {"conditions": {"age": [60, 94]}}]})
    with pytest.raises(PlanRefused, match="somebody would be 99"):
        draw(old.release, old.variables)


def test_a_later_visit_is_older_and_what_was_asked_in_numbers_was_asked_of_the_first(longer: TrainingPlan) -> None:
    first, second, third, *_ = images_of(longer)
    assert [one.session for one in (first, second, third)] == ["ses-01", "ses-02", "ses-03"]
    assert first.conditions == second.conditions == third.conditions
    assert first.now == first.conditions
    assert third.now["age"] == pytest.approx(float(str(first.conditions["age"])) + 5.0)
    assert (third.now["sex"], third.now["ventricles"]) == ("F", None)
    assert images_of(longer)[-1].session == ""
    assert in_words(images_of(longer)) == "7 images of 3 synthetic people"


def test_people_are_chosen_with_all_their_visits_or_not_at_all(longer: TrainingPlan) -> None:
    pool = candidates(longer.release, longer.variables, Policy.load().rules.copies, True)
    assert [one.index for one in pool] == list(range(len(pool)))
    asked = [one for one in pool if one.number < 2]
    assert [one.person.years for one in asked] == [0.0, 2.5, 5.0] * 2
    names = [f"sub-syn000{n}" for n in (1, 1, 1, 2, 2, 2, 3)]
    assert [one.person.name for one in chosen(longer.release, pool, {})] == names
    kept = chosen(longer.release, pool, {1: "site-a voted against it"})
    assert 0 not in {one.number for one in kept}, "one visit too many is the whole person's"
    assert [one.person.image for one in kept[:3]] == [f"sub-syn0001_ses-{n:02d}" for n in (1, 2, 3)]
    assert len({one.number for one in kept if one.cell == 0}) == 2
    everybody = {one.index: "it looks like a patient" for one in pool if one.cell == 0 and one.person.years == 5.0}
    with pytest.raises(GateBlocked, match="cell 1 asks for 2 people and 0 candidates are left"):
        chosen(longer.release, pool, everybody)


def test_one_visit_gives_the_candidates_there_were_before(plan: TrainingPlan) -> None:
    pool = candidates(plan.release, plan.variables, Policy.load().rules.copies, True)
    assert all(one.index == one.number and not one.person.session for one in pool)


def test_more_visits_need_more_spare_people() -> None:
    rules = Policy.load().rules.copies
    one, many = rules.spares(100, True), rules.spares(100, True, 3)
    kept = 1 / (1 + rules.spare)                             # of images, if `spare` is just enough for one visit
    assert one == round(100 * rules.spare)
    assert (100 + many) * kept**3 == pytest.approx(100, abs=0.5)
    assert rules.spares(100, False, 3) == rules.least_spare


def test_the_folder_is_bids_with_a_table_of_visits_for_everybody_who_has_some(longer: TrainingPlan, tmp_path: Path) -> None:
    wishes = Wishes(visits=VISITS, years=YEARS)
    some = list(people(PRESETS["tiny"], 2, 9, Hospital(name="x"), wishes))
    scans = [visit.images["T1w"][None] for person in some for visit in person.visits]
    volumes = torch.stack([*scans, scans[0]])
    persons = images_of(longer)
    measured = {"ventricles": [20.0 + i for i in range(7)]}
    numbers = [0] * 3 + [1] * 3 + [2]
    out = write_dataset(tmp_path / "release", longer, EDITION, persons, volumes, measured=measured, numbers=numbers)
    for i, person in enumerate(persons):
        place = f"{person.name}/{person.session}/anat" if person.session else f"{person.name}/anat"
        (image,) = (out / place).glob(f"{person.image}_*_T1w.nii.gz")
        assert torch.equal(torch.from_numpy(read_volume(image)[0]), volumes[i, 0])
        sidecar = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Index"] == int(person.name[-1]) - 1
        assert sidecar.get("YearsSinceFirstVisit") == (person.years if person.session else None)
    table = list(csv.DictReader((out / "participants.tsv").read_text().splitlines(), delimiter="\t"))
    assert [(row["participant_id"], row["ventricles_measured"]) for row in table] == [
        ("sub-syn0001", "20.00"), ("sub-syn0002", "23.00"), ("sub-syn0003", "26.00")
    ]  # fmt: skip
    visits = list(csv.DictReader((out / "sub-syn0002/sub-syn0002_sessions.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["session_id"] for row in visits] == ["ses-01", "ses-02", "ses-03"]
    assert [row["years"] for row in visits] == ["0", "2.5", "5"]
    assert float(visits[2]["age"]) - float(visits[0]["age"]) == pytest.approx(5.0, abs=0.011)
    assert [row["ventricles_measured"] for row in visits] == ["23.00", "24.00", "25.00"]
    assert not (out / "sub-syn0003" / "sub-syn0003_sessions.tsv").exists()
    assert set(json.loads((out / "sessions.json").read_text())) == {"session_id", "years", "age", "ventricles_measured"}
    assert "7 images of 3 synthetic people" in (out / "README.md").read_text()


@pytest.mark.parametrize("name", ["sub-syn0001", "sub-syn0001_ses-02"])
def test_a_site_rates_images_of_visits_by_name(name: str) -> None:
    assert ImageRating(image=name, rating="poor").image == name


@pytest.mark.slow
def test_a_release_with_visits_is_signed_verified_and_shows_one_person_over_the_years(
    voting: TrainingPlan, tmp_path: Path
) -> None:
    longer = voting.but(release={"seed": 5, "steps": 4, "cells": CELLS})
    hospitals, key = Hospitals(tmp_path, longer), SigningKey.generate()
    release = publish(longer, load_prior(longer), tmp_path, hospitals, EDITION)
    seal(release, key, hospitals.approvals(release))
    (tmp_path / "release.pub").write_bytes(key.public.pem)
    verify(release, key.public)
    assert len(list(release.glob("sub-*/ses-*/anat/*.nii.gz"))) == 2 * VISITS
    assert len(list(release.glob("sub-*/anat/*.nii.gz"))) == 1
    report = (release / "docs" / "report.html").read_text()
    assert "One synthetic person over the years: 0 years to 5 years" in report
    assert "7 images of 3 synthetic people" in report
    numbers = json.loads((release / "docs" / "metrics.json").read_text())
    assert (numbers["images"], numbers["people"]) == (7, 3)
    years = next(sweep for sweep in numbers["sweeps"] if sweep["name"] == "years")
    assert years["ventricles_ml"][-1] > years["ventricles_ml"][0], "ventricles widen"
