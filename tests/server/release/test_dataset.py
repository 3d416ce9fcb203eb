from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from braing3n_core.data.template import SPACE, template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import GateBlocked, UsageError
from braing3n_core.plan import TrainingPlan
from server.release import dataset
from server.release.cohort import Person, draw
from server.release.dataset import image_path, write_dataset
from tests.server.release.hospitals import EDITION

DOCUMENTS = {"docs/report.html": b"<!doctype html>\n", "docs/metrics.json": b"{}\n"}


@pytest.fixture(scope="module")
def people(plan: TrainingPlan) -> list[Person]:
    return draw(plan.release, plan.variables)


@pytest.fixture(scope="module")
def release(plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "release"
    measured = {"ventricles": [30.0 + i for i in range(len(people))]}
    return write_dataset(out, plan, EDITION, people, volumes, measured=measured, documents=DOCUMENTS)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_sums_verify_with_coreutils_and_name_every_file(release: Path, tmp_path: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=release, check=True)
    named = {line.split("  ", 1)[1] for line in (release / "SHA256SUMS").read_text().splitlines()}
    assert named == set(tree(release)) - {"SHA256SUMS"}
    copy = tmp_path / "elsewhere"
    shutil.copytree(release, copy)
    (copy / "participants.tsv").write_text("participant_id\n")
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=copy, capture_output=True, check=False)
    assert checked.returncode == 1


def test_the_same_inputs_never_give_other_bytes(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    made = [write_dataset(tmp_path / name, plan, EDITION, people, volumes, documents=DOCUMENTS) for name in ("one", "two")]
    trees = [tree(folder) for folder in made]
    assert trees[0] == trees[1]


def test_headers_say_synthetic_mni_millimetres_and_nothing_else(release: Path, people: list[Person]) -> None:
    raw = (release / image_path(people[1])).read_bytes()
    assert raw[3] == 0, "no file name or comment in the gzip header"
    assert struct.unpack("<I", raw[4:8])[0] == 0, "no time in the gzip header"
    header = gzip.decompress(raw)
    assert header[123] & 0x07 == 2, "millimetres"
    assert struct.unpack("<hh", header[252:256]) == (4, 4), "qform and sform are MNI"
    assert header[148:228].rstrip(b"\0") == b"SYNTHETIC demo seed 11 image 1"
    assert header[328:344].rstrip(b"\0") == b"SYNTHETIC"
    assert header[228:252].rstrip(b"\0") == b"", "aux_file is empty"
    assert header[348:352] == b"\0\0\0\0", "no extension"


def test_images_come_back_as_they_were(release: Path, plan: TrainingPlan, people: list[Person], volumes: Tensor) -> None:
    for person, volume in zip(people, volumes, strict=True):
        values, affine = read_volume(release / image_path(person))
        assert np.array_equal(values, volume[0].numpy())
        assert np.allclose(affine, template(plan.model).affine)


def test_every_image_has_a_sidecar_that_says_what_it_is(release: Path, plan: TrainingPlan, people: list[Person]) -> None:
    for index, person in enumerate(people):
        path = release / image_path(person)
        assert f"_space-{SPACE}_desc-synthetic_T1w" in path.name
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["SkullStripped"] is True
        assert sidecar["SyntheticData"] is True
        assert sidecar["SpatialReference"]
        assert sidecar["RequestedConditions"] == person.conditions
        assert (sidecar["Seed"], sidecar["Index"], sidecar["PlanDigest"]) == (11, index, plan.digest)


def test_participants_hold_requests_with_units_and_no_age_above_89(release: Path, people: list[Person]) -> None:
    with (release / "participants.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    columns = json.loads((release / "participants.json").read_text())
    assert [row["participant_id"] for row in rows] == [person.name for person in people]
    assert set(rows[0]) == set(columns)
    assert all("REQUESTED" in about["Description"] for name, about in columns.items() if name in people[0].conditions)
    assert columns["age"]["Units"] == "year"
    assert columns["sex"]["Levels"] == {"F": "female", "M": "male"}
    assert [row["age"] for row in rows[4:]] == ["89", "89"]
    assert rows[4]["ventricles"] == "n/a"
    assert rows[0]["ventricles_measured"] == "30.00"


def test_what_could_not_be_measured_is_never_nan(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    out = write_dataset(tmp_path / "r", plan, EDITION, people, volumes, measured={"ventricles": [math.nan] * len(people)})
    table = (out / "participants.tsv").read_text()
    assert "nan" not in table
    assert table.splitlines()[1].endswith("\tn/a")


def test_the_description_is_a_derivative_with_its_maker(release: Path) -> None:
    about = json.loads((release / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "braing3n"
    assert about["License"] == "CC0-1.0"
    assert [source["URL"] for source in about["SourceDatasets"]] == ["urn:braing3n:demo:site-a", "urn:braing3n:demo:site-b"]
    ignored = ["SHA256SUMS", "attestations.intoto.jsonl", "croissant.json", "model.sig"]
    assert (release / ".bidsignore").read_text().split() == ignored


def test_real_patients_images_are_never_given_away_by_default(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    real = plan.but(rehearsal=None)
    about = json.loads((write_dataset(tmp_path / "r", real, EDITION, people, volumes) / "dataset_description.json").read_text())
    assert "No licence granted" in about["License"]


def test_an_existing_release_is_never_overwritten_silently(
    release: Path, plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "release"
    shutil.copytree(release, out)
    before = tree(out)
    with pytest.raises(UsageError, match="there already"):
        write_dataset(out, plan, EDITION, people, volumes)
    assert tree(out) == before
    write_dataset(out, plan, EDITION, people, volumes, documents={"docs/new.txt": b"new\n"}, replace=True)
    assert (out / "docs" / "new.txt").exists()
    assert not (out / "docs" / "report.html").exists(), "nothing of the old release is left inside the new one"
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


@pytest.mark.parametrize("new_one_is_there", [False, True])
def test_a_kill_between_two_renames_loses_no_release(
    new_one_is_there: bool, release: Path, plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "release"
    shutil.copytree(release, tmp_path / ".release.replaced")
    if new_one_is_there:
        write_dataset(tmp_path / "other", plan, EDITION, people, volumes, documents={"docs/new.txt": b"new\n"})
        (tmp_path / "other").rename(out)
    with pytest.raises(UsageError, match="there already"):
        write_dataset(out, plan, EDITION, people, volumes)
    assert (out / "docs" / "new.txt").exists() == new_one_is_there
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_replace_never_deletes_what_is_not_a_release(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a release"):
        write_dataset(home, plan, EDITION, people, volumes, replace=True)
    assert (home / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("replace", [False, True])
def test_an_interrupted_write_leaves_nothing_behind(
    replace: bool, release: Path, plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "release"
    if replace:
        shutil.copytree(release, out)
    before = tree(tmp_path)
    written = []

    def full_disk(path: Path, *_: object, **__: object) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError("No space left on device")
        path.write_bytes(b"")

    monkeypatch.setattr(dataset, "write_volume", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_dataset(out, plan, EDITION, people, volumes, replace=replace)
    assert tree(tmp_path) == before
    assert out.exists() == replace
    assert list(tmp_path.iterdir()) == ([out] if replace else [])


def test_a_broken_volume_is_never_published(plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path) -> None:
    broken = volumes.clone()
    broken[3, 0, 20, 20, 20] = math.nan
    with pytest.raises(GateBlocked, match="sub-syn0004"):
        write_dataset(tmp_path / "release", plan, EDITION, people, broken)
    with pytest.raises(GateBlocked, match="shape"):
        write_dataset(tmp_path / "release", plan, EDITION, people, volumes[:5])
    with pytest.raises(GateBlocked, match="measured on 2 of 6"):
        write_dataset(tmp_path / "release", plan, EDITION, people, volumes, measured={"ventricles": [1.0, 2.0]})
    assert list(tmp_path.iterdir()) == []


def test_a_level_with_a_tab_cannot_shift_the_columns(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    sneaky = [Person(person.name, person.conditions | {"diagnosis": "healthy\t40\nsub-x"}) for person in people]
    lines = (write_dataset(tmp_path / "r", plan, EDITION, sneaky, volumes) / "participants.tsv").read_text().splitlines()
    assert {line.count("\t") for line in lines} == {len(plan.variables) + 1}
    assert len(lines) == len(people) + 1


def test_the_card_says_what_it_is_and_what_is_not_known(release: Path, plan: TrainingPlan) -> None:
    card = (release / "README.md").read_text()
    assert card.startswith("---\npretty_name: \"demo-1.0.0\"\nlicense: cc0-1.0\n")
    for words in ("None is a scan of a person", "not recorded", "model_signing verify key", "is_derivative=True", plan.digest):
        assert words in card
    assert (release / "CHANGES").read_text() == "1.0.0 2026-11-24\n  - First release.\n"
    assert "CC0 1.0" in (release / "LICENSE").read_text()


def test_a_real_study_is_never_given_away_by_its_card(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    out = write_dataset(tmp_path / "r", plan.but(rehearsal=None), EDITION, people, volumes)
    assert "license: other" in (out / "README.md").read_text()
    assert (out / "LICENSE").read_text().startswith("No licence granted yet")
    assert "zero/1.0" not in (out / "croissant.json").read_text()


def test_croissant_names_every_image_and_the_table_by_its_digest(release: Path, people: list[Person]) -> None:
    about = json.loads((release / "croissant.json").read_text())
    table, images = about["distribution"]
    assert table["sha256"] == hashlib.sha256((release / "participants.tsv").read_bytes()).hexdigest()
    found = {path.relative_to(release).as_posix() for path in release.glob(images["includes"])}
    assert found == {image_path(person) for person in people}
    header = (release / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert [field["name"] for field in about["recordSet"][0]["field"]] == header
    kinds = {field["name"]: field["dataType"] for field in about["recordSet"][0]["field"]}
    assert (kinds["age"], kinds["ventricles"], kinds["ventricles_measured"]) == ("sc:Float", "sc:Text", "sc:Float")
    assert about["rai:personalSensitiveInformation"][0].startswith("No image is of a person. Differential privacy")


def test_the_raw_variant_is_never_raw_without_saying_synthetic(
    plan: TrainingPlan, people: list[Person], volumes: Tensor, tmp_path: Path
) -> None:
    out = write_dataset(tmp_path / "r", plan, EDITION, people, volumes, kind="raw")
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "raw"
    names = [path.name for path in out.glob("sub-*/anat/*.nii.gz")]
    assert len(names) == len(people)
    assert all("_rec-synthetic_" in name for name in names)
    assert not (out / "descriptions.tsv").exists()
