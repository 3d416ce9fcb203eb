"""A phantom patient is one person at every visit, and the answer key says what was done to the anatomy."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.answers import write_hospitals
from braing3n_core.data.bids import read_bids
from braing3n_core.data.patient import LABELS, Person, Wishes, people
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import UsageError
from braing3n_core.metrics import dice
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES, Hospital

TINY = PRESETS["tiny"]
PUBLIC = Hospital(name="public")
ALL = ("T1w", "T2w", "FLAIR", "T1ce")
ML = 0.064                                                   # of one voxel


def some(count: int, seed: int = 3, **wishes: object) -> list[Person]:
    return list(people(TINY, count, seed, PUBLIC, Wishes(**wishes)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ill() -> list[Person]:
    return some(6, modalities=ALL, visits=3, tumours=1.0)


def test_years_widen_ventricles_and_spread_lesions_and_leave_the_head() -> None:
    for person in some(4, visits=4):
        truth = [visit.truth for visit in person.visits]
        assert np.allclose(np.diff([visit.age for visit in person.visits]), 1.0, atol=1e-3)
        assert (np.diff([one["ventricles"] for one in truth]) > 0).all()
        assert (np.diff([one["lesions"] for one in truth]) >= 0).all()
        first, last = (torch.from_numpy(person.visits[v].labels > 0) for v in (0, 3))
        assert dice(first, last) > 0.99


@pytest.mark.slow
def test_a_tumour_grows_and_pushes(ill: list[Person]) -> None:
    for person, well in zip(ill, some(6, visits=3), strict=True):
        truth = [visit.truth for visit in person.visits]
        assert (np.diff([one["tumour_core"] for one in truth]) > 0).all()
        assert min(one["oedema"] for one in truth) > 0
        assert well.visits[0].truth["tumour_core"] == 0
        # What it pushes away is not lost: the brain loses less than the tumour takes.
        tissue, before = (float(np.isin(p.visits[2].labels, (2, 3, 5, 6)).sum()) * ML for p in (person, well))
        assert before - tissue < truth[2]["tumour_core"]
        assert not np.array_equal(person.visits[2].labels == 4, well.visits[2].labels == 4)


@pytest.mark.slow
def test_what_else_is_asked_for_changes_nobody() -> None:
    """More modalities, and a larger share of tumours, leave everybody who has none as they were."""
    plain = some(6)
    for wishes in ({"modalities": ALL}, {"modalities": ("FLAIR", "T1w")}, {"tumours": 0.5}):
        others = some(6, **wishes)
        well = [(one, other) for one, other in zip(plain, others, strict=True) if not other.tumour]
        assert len(well) > 1
        for one, other in well:
            assert (one.sex, one.diagnosis, one.visits[0].age) == (other.sex, other.diagnosis, other.visits[0].age)
            assert one.visits[0].truth == other.visits[0].truth
            assert torch.equal(one.visits[0].images["T1w"], other.visits[0].images["T1w"])


def test_every_modality_shows_what_it_should(ill: list[Person]) -> None:
    for person in ill:
        visit = person.visits[2]
        part = {name: visit.labels == number for number, name in LABELS.items()}

        def level(modality: str, name: str, visit: object = visit, part: dict[str, np.ndarray] = part) -> float:
            return float(np.median(visit.images[modality].numpy()[part[name]]))  # type: ignore[attr-defined]

        assert level("T1w", "lateral ventricle") < level("T1w", "grey matter") < level("T1w", "white matter")
        assert level("T2w", "lateral ventricle") > level("T2w", "grey matter") > level("T2w", "white matter")
        assert level("FLAIR", "oedema") > 1.2 * level("FLAIR", "white matter")
        assert level("FLAIR", "lateral ventricle") < level("FLAIR", "white matter")
        assert level("T1ce", "tumour rim") > 1.2 * level("T1w", "tumour rim")
        assert level("T1w", "tumour core") < level("T1w", "white matter")


def test_labels_have_the_volumes_of_the_truth(ill: list[Person]) -> None:
    for person in ill:
        labels, truth = person.visits[2].labels, person.visits[2].truth
        assert float(np.isin(labels, (7, 8)).sum()) * ML == pytest.approx(truth["tumour_core"], rel=0.25)
        assert float((labels == 4).sum()) * ML == pytest.approx(truth["ventricles"], rel=0.5)


def test_folders_are_bids_with_the_answers_beside_them(tmp_path: Path) -> None:
    wishes = Wishes(("T1w", "FLAIR"), visits=2, tumours=0.5)
    seen: list[tuple[int, int]] = []
    folders = write_hospitals(tmp_path / "out", TINY, 2, 2, 1, wishes, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for folder in folders:
        entries, excluded = read_bids(folder, DEFAULT_VARIABLES)
        assert not excluded
        assert [len(entry.scans) for entry in entries] == [2, 2]
        for entry in entries:
            ages = [entry.at(scan.session)["age"] for scan in entry.scans]
            assert float(str(ages[1])) - float(str(ages[0])) == pytest.approx(1.0, abs=0.11)
            name = f"{entry.participant}/ses-2/anat/{entry.participant}_ses-2"
            image, affine = read_volume(folder / f"{name}_FLAIR.nii.gz")
            labels, place = read_volume(folder / "derivatives" / "labels" / f"{name}_dseg.nii.gz")
            assert image.shape == labels.shape
            assert np.allclose(affine, place)
            assert set(np.unique(labels)) <= {0, *LABELS}
        table = list(csv.DictReader((folder / "participants.tsv").read_text().splitlines(), delimiter="\t"))
        assert {"tumour", "true_ventricles", "lesions", "true_tumour_core", "true_oedema"} <= set(table[0])
    with pytest.raises(UsageError, match="there already"):
        write_hospitals(tmp_path / "out", TINY, 1, 1, 1, wishes)


def test_they_are_brains_where_the_template_is() -> None:
    for person in some(4):
        assert dice(torch.from_numpy(person.visits[0].labels > 0), template(TINY).mask) > 0.9


def test_without_a_new_scan_only_anatomy_differs_and_the_first_visit_is_what_it_was() -> None:
    wishes = Wishes(visits=2, years=10.0)
    ((still,), (scanned,)) = (
        list(people(TINY, 1, 5, Hospital(name="x"), dataclasses.replace(wishes, rescanned=again))) for again in (False, True)
    )
    one, two = (person.visits for person in (still, scanned))
    assert torch.equal(one[0].images["T1w"], two[0].images["T1w"])
    assert one[1].truth == two[1].truth
    assert not torch.equal(one[1].images["T1w"], two[1].images["T1w"])
    moved = [(visits[1].images["T1w"] - visits[0].images["T1w"]).abs().mean() for visits in (one, two)]
    assert moved[0] < 0.7 * moved[1], "field and noise make most of what two scans differ in"
