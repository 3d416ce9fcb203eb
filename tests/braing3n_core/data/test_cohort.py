"""A bad file costs itself and nothing else; a patient is on one side of the split, always; nothing is computed twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from braing3n_core.data import preprocess
from braing3n_core.data.cohort import Cohort, held_out_of, load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.data.preprocess import Method, Placed
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused, PlanRefused
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measure
from braing3n_core.plan import DEFAULT_VARIABLES, Hospital
from tests.client.studies import study

TINY = PRESETS["tiny"]
DATA = Path(__file__).parents[3].parent / "shared" / "data"
PLAN = study(data={"registration": "none"})
GOOD = {"sub-ph0002", "sub-ph0003", "sub-ph0004"}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids") / "north"
    write_bids(folder, phantoms(TINY, 4, 1, Hospital(name="north")), TINY, 4)
    return folder


@pytest.fixture
def bids(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "bids"))


@pytest.fixture
def never_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, preprocessing anything fails the test."""

    def refuse(path: Path, method: Method) -> Placed:
        raise AssertionError(f"{path.name} was preprocessed again")

    return lambda: monkeypatch.setattr(preprocess, "place", refuse)


def names(cohort: Cohort) -> set[str]:
    return {patient.participant for patient in cohort.patients}


def scan_of(bids: Path, name: str = "sub-ph0001") -> Path:
    return bids / name / "anat" / f"{name}_T1w.nii.gz"


def volumes(cohort: Cohort) -> dict[str, torch.Tensor]:
    return {patient.participant: patient.scans[0].volume for patient in cohort.patients}


def test_a_phantom_hospital_loads_as_it_was_written(bids: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cohort = load_cohort(bids, PLAN, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not cohort.excluded
    for patient, (volume, truth) in zip(cohort.patients, phantoms(TINY, 4, 1, Hospital(name="north")), strict=True):
        scan = patient.scans[0]
        assert scan.volume.shape == (1, *TINY.shape)
        assert float((scan.volume - volume).abs().mean()) < 1e-3
        assert set(scan.conditions) == {variable.name for variable in PLAN.variables}
        assert (scan.conditions["sex"], scan.conditions["modality"]) == (truth.sex, "T1w")
        assert scan.conditions["age"] == pytest.approx(truth.age, abs=0.06)
        measured = measure(volume, template(TINY), TINY.spacing_mm).ventricles_ml
        assert scan.conditions["ventricles"] == pytest.approx(measured, rel=0.05)
    assert len(cohort.training) + len(cohort.held_out) == 4
    assert cohort.training
    assert cohort.held_out


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def four_dimensional(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((48, 48, 48, 3), np.float32), template(TINY).affine), path)


def all_zero(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros(TINY.shape, np.float32), template(TINY).affine), path)


def with_nan(path: Path) -> None:
    values = np.ones(TINY.shape, np.float32)
    values[5, 6, 7] = np.nan
    nib.save(nib.Nifti1Image(values, template(TINY).affine), path)


def singular_affine(path: Path) -> None:
    content = bytearray(nib.Nifti1Image(np.random.default_rng(0).random(TINY.shape, np.float32), np.eye(4)).to_bytes())
    content[252:254] = bytes(2)                              # qform_code
    content[312:328] = bytes(16)                             # srow_z
    path.unlink()
    path.with_suffix("").write_bytes(bytes(content))


def not_an_image(path: Path) -> None:
    path.write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("crime", "words"),
    [
        (truncated, "truncated"),
        (four_dimensional, "4-D"),
        (all_zero, "zero everywhere"),
        (with_nan, "NaN"),
        (singular_affine, "singular affine"),
        (not_an_image, "not NIfTI"),
    ],
)
def test_a_bad_file_is_listed_and_the_others_load(
    bids: Path, tmp_path: Path, crime: Callable[[Path], None], words: str
) -> None:
    crime(scan_of(bids))
    for _ in range(2):                                       # the second time the refusal comes from the cache
        cohort = load_cohort(bids, PLAN, tmp_path / "cache")
        assert names(cohort) == GOOD
        (excluded,) = cohort.excluded
        assert excluded.file.startswith("sub-ph0001/anat/")
        assert words in excluded.reason
        assert "\n" not in excluded.reason


@pytest.mark.slow
def test_noise_that_is_no_brain_is_listed(bids: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(TINY.shape, np.float32)
    nib.save(nib.Nifti1Image(values, template(TINY).affine), scan_of(bids))
    cohort = load_cohort(bids, study(data={"registration": "affine"}), tmp_path / "cache")
    assert names(cohort) == GOOD
    assert "did not register" in cohort.excluded[0].reason


@pytest.mark.parametrize("age", ["250", "nan"])
def test_an_impossible_age_is_listed(bids: Path, tmp_path: Path, age: str) -> None:
    table = bids / "participants.tsv"
    lines = table.read_text().splitlines()
    cells = lines[1].split("\t")
    table.write_text("\n".join([lines[0], "\t".join([cells[0], age, *cells[2:]]), *lines[2:]]))
    cohort = load_cohort(bids, PLAN, tmp_path / "cache")
    assert names(cohort) == GOOD
    assert "age" in cohort.excluded[0].reason


def test_a_patient_without_a_scan_is_listed(bids: Path, tmp_path: Path) -> None:
    shutil.rmtree(bids / "sub-ph0001")
    cohort = load_cohort(bids, PLAN, tmp_path / "cache")
    assert names(cohort) == GOOD
    assert "no T1w scan" in cohort.excluded[0].reason


def test_a_table_without_a_needed_column_is_refused(bids: Path, tmp_path: Path) -> None:
    table = bids / "participants.tsv"
    table.write_text(table.read_text().replace("age", "years"))
    with pytest.raises(DataRefused, match="no column 'age'"):
        load_cohort(bids, PLAN, tmp_path / "cache")


@pytest.mark.parametrize("there", [True, False])
def test_a_missing_or_empty_folder_is_refused_in_one_line(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "bids").mkdir()
    with pytest.raises(DataRefused) as refusal:
        load_cohort(tmp_path / "bids", PLAN, tmp_path / "cache")
    assert "\n" not in str(refusal.value)


def test_a_folder_without_one_usable_scan_is_refused(bids: Path, tmp_path: Path) -> None:
    for name in ("sub-ph0001", *GOOD):
        truncated(scan_of(bids, name))
    with pytest.raises(DataRefused, match=r"no scan in .* can be used") as refusal:
        load_cohort(bids, PLAN, tmp_path / "cache")
    assert "\n" not in str(refusal.value)


def test_one_file_under_two_names_never_counts_as_two_patients(bids: Path, tmp_path: Path) -> None:
    shutil.copy(scan_of(bids), scan_of(bids, "sub-ph0002"))
    cohort = load_cohort(bids, PLAN, tmp_path / "cache")
    assert names(cohort) == {"sub-ph0001", "sub-ph0003", "sub-ph0004"}
    assert "same file" in cohort.excluded[0].reason


def test_a_measure_nobody_knows_is_refused(bids: Path, tmp_path: Path) -> None:
    variables = [v.model_dump(mode="json") for v in DEFAULT_VARIABLES]
    strange = {"kind": "continuous", "name": "amygdala", "unit": "ml", "low": 0.0, "high": 9.0, "source": "measured"}
    plan = study(data={"registration": "none"}, variables=[*variables, strange])
    with pytest.raises(PlanRefused, match="amygdala"):
        load_cohort(bids, plan, tmp_path / "cache")


def test_nothing_is_computed_twice(bids: Path, tmp_path: Path, never_again: Callable[[], None]) -> None:
    first = load_cohort(bids, PLAN, tmp_path / "cache")
    never_again()
    second = load_cohort(bids, PLAN, tmp_path / "cache")
    assert all(torch.equal(volumes(first)[name], volumes(second)[name]) for name in names(first))
    assert [p.scans[0].conditions for p in first.patients] == [p.scans[0].conditions for p in second.patients]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "foreign"])
def test_a_damaged_cache_is_computed_again_and_never_believed(bids: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    first = volumes(load_cohort(bids, PLAN, cache))
    for kept in cache.glob("*.safetensors"):
        content = bytearray(kept.read_bytes())
        content[-20000] ^= 64
        kept.write_bytes({"cut": bytes(content[:-9]), "bit": bytes(content), "empty": b"", "foreign": b"hello" * 99}[damage])
    second = volumes(load_cohort(bids, PLAN, cache))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_another_plan_or_another_file_never_gets_an_old_entry(bids: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = volumes(load_cohort(bids, PLAN, cache))
    moved = volumes(load_cohort(bids, study(data={"registration": "affine"}), cache))
    assert not torch.equal(before["sub-ph0001"], moved["sub-ph0001"])
    shutil.copy(scan_of(bids, "sub-ph0002"), scan_of(bids))
    shutil.rmtree(bids / "sub-ph0002")
    after = volumes(load_cohort(bids, PLAN, cache))
    assert torch.equal(after["sub-ph0001"], before["sub-ph0002"])


def test_ctrl_c_keeps_what_was_finished(bids: Path, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_cohort(bids, PLAN, tmp_path / "cache", stop)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2
    assert not list((tmp_path / "cache").glob(".*"))


def test_all_visits_of_a_patient_are_on_one_side(bids: Path, tmp_path: Path) -> None:
    for place, name in enumerate(sorted(GOOD)):
        visit = bids / "sub-ph0001" / f"ses-{place}" / "anat"
        visit.mkdir(parents=True)
        shutil.move(scan_of(bids, name), visit / f"sub-ph0001_ses-{place}_T1w.nii.gz")
    cohort = load_cohort(bids, PLAN, tmp_path / "cache")
    assert [len(patient.scans) for patient in cohort.patients] == [4]


def test_other_modalities_are_kept_apart_and_nobody_counts_without_a_t1w(tmp_path: Path) -> None:
    cell = {"count": 2, "modalities": ["T1w", "FLAIR"], "conditions": {}}
    plan = study(data={"registration": "none"}, release={"seed": 7, "cells": [cell]}, rehearsal={})
    write_hospital(tmp_path / "bids", plan.sites[0].model_copy(update={"patients": 3}), plan)
    first, second = (tmp_path / "bids" / f"sub-ph000{n}" / "anat" for n in (1, 2))
    (first / "sub-ph0001_T1w.nii.gz").unlink()
    (second / "sub-ph0002_FLAIR.nii.gz").unlink()
    cohort = load_cohort(tmp_path / "bids", plan, tmp_path / "cache")
    kinds = {one.participant: ([scan.modality for scan in one.scans], [scan.modality for scan in one.others])
             for one in cohort.patients}  # fmt: skip
    assert kinds == {"sub-ph0002": (["T1w"], []), "sub-ph0003": (["T1w"], ["FLAIR"])}
    assert [(one.file, one.reason) for one in cohort.excluded] == [
        ("sub-ph0001", "it has FLAIR and no T1w that can be used; add the T1w")
    ]
    t1w_alone = load_cohort(tmp_path / "bids", study(data={"registration": "none"}), tmp_path / "cache")
    assert all(not one.others for one in t1w_alone.patients)


def test_who_joins_later_changes_nobodys_side() -> None:
    people = [f"sub-{number:04d}" for number in range(400)]
    early, late = held_out_of(people[:200], 7, 0.2), held_out_of(people, 7, 0.2)
    assert early == late & set(people[:200])
    assert 0.15 < len(late) / 400 < 0.25
    assert held_out_of(people, 8, 0.2) != late


@pytest.mark.parametrize("part", [1e-9, 0.2, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_neither_side_is_ever_empty(part: float, count: int) -> None:
    held_out = held_out_of([f"sub-{number}" for number in range(count)], 1, part)
    assert 1 <= len(held_out) < count


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")
def test_real_scans_of_three_sites_load(tmp_path: Path, never_again: Callable[[], None]) -> None:
    bids = tmp_path / "bids"
    rows = ["participant_id\tage\tsex\tdiagnosis"]
    for site, name in (("site-a", "sub-IXI012"), ("site-b", "sub-IXI083"), ("site-c", "sub-06"), ("site-ms", "sub-mslong01")):
        shutil.copytree(DATA / site / name, bids / name)
        rows += [line for line in (DATA / site / "participants.tsv").read_text().splitlines() if line.startswith(f"{name}\t")]
    (bids / "participants.tsv").write_text("\n".join(rows))
    plan = study(data={"registration": "affine"})
    cohort = load_cohort(bids, plan, tmp_path / "cache")
    assert names(cohort) == {"sub-IXI012", "sub-IXI083", "sub-06", "sub-mslong01"}      # the last was never stripped
    assert [len(p.scans) for p in cohort.patients if p.participant == "sub-mslong01"] == [2]
    assert not cohort.excluded
    assert all(5 < float(str(scan.conditions["ventricles"])) < 60 for p in cohort.patients for scan in p.scans)
    never_again()
    assert names(load_cohort(bids, plan, tmp_path / "cache")) == names(cohort)
