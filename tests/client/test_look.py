"""What a site looks at before it approves: the form holds nothing of a patient, the neighbours stay at the site."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.data.cohort import Cohort, Patient, Scan
from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.phantom import phantoms
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import DataRefused, IntegrityError, UsageError
from braing3n_core.manifest import content, digests_of, root
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from client.look import Release, nearest, write_neighbour_page, write_rating_page
from client.rating import ARTEFACTS, RATINGS, ImageRating, OutputCheck
from client.release import check_of
from tests.accessibility import faults
from tests.chrome import browser, chrome
from tests.client.studies import study

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    return torch.stack([volume for volume, _ in phantoms(TINY, 5, 11, Hospital(name="x"))])


@pytest.fixture(scope="module")
def folder(volumes: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of a release; the second is a patient's own scan."""
    out = tmp_path_factory.mktemp("look") / "release"
    (out / "docs").mkdir(parents=True)
    (out / "docs" / "plan.json").write_text(study().canonical())
    (out / "docs" / "policy.toml").write_text("[copies]\nthreshold = 0.88\n")
    for number, place in enumerate((3, 0, 4), start=1):
        path = out / f"sub-syn{number:04d}" / "anat" / f"sub-syn{number:04d}_desc-synthetic_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        write_volume(path, volumes[place, 0].numpy(), template(TINY).affine)
    return out


@pytest.fixture(scope="module")
def cohort(volumes: Tensor) -> Cohort:
    people = [Patient(f"sub-secret{i}", (Scan(volumes[i], {}),), held_out=i == 1) for i in range(3)]
    return Cohort(tuple(people), ())


def test_a_copy_comes_first_and_beside_whose_scan_it_is(folder: Path, cohort: Cohort) -> None:
    pairs = nearest(Release.read(folder), cohort)
    assert (pairs[0].image, pairs[0].patient) == ("sub-syn0002", "sub-secret0")
    assert pairs[0].alike > 0.99
    assert len(pairs) == 3
    assert all(pair.alike < 0.88 for pair in pairs[1:])


def test_neighbours_are_for_their_owner_alone_and_say_so(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    release = Release.read(folder)
    page = write_neighbour_page(release, nearest(release, cohort), "north", tmp_path / "pages")
    text = page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert "NOT FOR RELEASE" in text
    assert "sub-secret0" in text
    assert text.count('class="pair above"') == 1
    assert "<script" not in text


def test_the_form_is_made_of_released_images_alone(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    text = write_rating_page(Release.read(folder), tmp_path, 24).read_text()
    assert text.count("<fieldset") == 3
    assert "secret" not in text
    for other in tmp_path.iterdir():
        assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_nobody_picks_which_images_are_rated(folder: Path) -> None:
    release = Release.read(folder)
    assert release.sample(24) == [0, 1, 2]
    assert release.sample(2) == release.sample(2)
    assert len(set(release.sample(2))) == 2


@pytest.mark.parametrize("spoil", [
    lambda out: (out / "docs" / "plan.json").write_text("{}"), lambda out: (out / "docs" / "policy.toml").write_text("a = 1"),
    lambda out: (out / "docs" / "plan.json").unlink(),
])
def test_a_folder_that_is_no_release_is_not_looked_at(folder: Path, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("plan.json", "policy.toml"):
        (tmp_path / "docs" / name).write_bytes((folder / "docs" / name).read_bytes())
    with pytest.raises(IntegrityError, match="no images"):
        Release.read(tmp_path)
    spoil(tmp_path)
    with pytest.raises(IntegrityError, match="no plan and policy"):
        Release.read(tmp_path)


# ------------------------------------------------------------------------------------------------------- modalities


@pytest.fixture(scope="module")
def pairs() -> dict[str, Tensor]:
    """Modality -> (5, 1, D, H, W) of five phantoms."""
    both = ("T1w", "FLAIR")
    brains = list(people(TINY, 5, 11, Hospital(name="x"), Wishes(modalities=both)))
    return {name: torch.stack([brain.visits[0].images[name][None] for brain in brains]) for name in both}


@pytest.fixture(scope="module")
def flairs(pairs: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people of a release with both modalities; the FLAIR of the second is a patient's own."""
    out = tmp_path_factory.mktemp("flairs") / "release"
    (out / "docs").mkdir(parents=True)
    cells = [{"count": 2, "modalities": ["T1w", "FLAIR"], "conditions": {}}]
    (out / "docs" / "plan.json").write_text(study().but(release={"seed": 1, "cells": cells}).canonical())
    (out / "docs" / "policy.toml").write_text("[copies]\nthreshold = 0.88\n")
    for number, places in ((1, {"T1w": 3, "FLAIR": 3}), (2, {"T1w": 4, "FLAIR": 0})):
        for modality, place in places.items():
            path = out / f"sub-syn{number:04d}" / "anat" / f"sub-syn{number:04d}_desc-synthetic_{modality}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, pairs[modality][place, 0].numpy(), template(TINY).affine)
    return out


def patients(pairs: dict[str, Tensor], others: int) -> Cohort:
    """Three patients; the first so many have a FLAIR too."""
    return Cohort(tuple(
        Patient(
            f"sub-secret{i}", (Scan(pairs["T1w"][i], {}),), held_out=False,
            others=(Scan(pairs["FLAIR"][i], {}, "FLAIR"),) if i < others else (),
        )
        for i in range(3)
    ), ())  # fmt: skip


def test_a_copied_flair_comes_first_beside_the_flair_it_was_copied_from(flairs: Path, pairs: dict[str, Tensor]) -> None:
    release = Release.read(flairs)
    assert release.names == ("sub-syn0001", "sub-syn0002", "sub-syn0001_FLAIR", "sub-syn0002_FLAIR")
    found = nearest(release, patients(pairs, 2))
    assert (found[0].image, found[0].patient) == ("sub-syn0002_FLAIR", "sub-secret0")
    assert torch.equal(found[0].scan, pairs["FLAIR"][0])
    assert len(found) == 4
    assert all(pair.alike < release.threshold for pair in found[1:])


def test_a_copied_t1w_is_found_under_the_name_of_a_flair(flairs: Path, pairs: dict[str, Tensor], tmp_path: Path) -> None:
    """And by a site that has no FLAIR at all."""
    out = Path(shutil.copytree(flairs, tmp_path / "release"))
    (path,) = (out / "sub-syn0001" / "anat").glob("*_FLAIR.nii.gz")
    write_volume(path, pairs["T1w"][1, 0].numpy(), template(TINY).affine)
    first = nearest(Release.read(out), patients(pairs, 0))[0]
    assert (first.image, first.patient) == ("sub-syn0001_FLAIR", "sub-secret1")
    assert first.alike > 0.99


def test_both_images_of_a_person_are_rated_by_name(flairs: Path, tmp_path: Path) -> None:
    text = write_rating_page(Release.read(flairs), tmp_path, 24).read_text()
    for name in ("sub-syn0001", "sub-syn0001_FLAIR"):
        assert f'data-image="{name}"' in text
        assert ImageRating(image=name, rating="poor").image == name
    assert ImageRating(image="sub-syn0001_ses-01_FLAIR", rating="poor")


def form(folder: Path, **changes: object) -> dict[str, object]:
    images = [{"image": f"sub-syn{n:04d}", "rating": "acceptable", "artefacts": ["blur"]} for n in (1, 2, 3)]
    found = {"kind": "output-check", "release": root(content(digests_of(folder))), "role": "radiologist", "images": images}
    return found | {"comment": "", "minutes": 4.5} | changes


def test_ratings_become_what_is_signed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "form.json").write_text(json.dumps(form(folder)))
    check = check_of(folder, tmp_path / "form.json", "", 0, "", "")
    assert (check.role, check.looked_at, check.rating, check.minutes) == ("radiologist", 3, "acceptable", 4.5)
    assert check.images[0] == {"image": "sub-syn0001", "rating": "acceptable", "artefacts": ["blur"]}


def test_one_bad_image_is_enough_for_nothing_to_be_signed(folder: Path, tmp_path: Path) -> None:
    images = [{"image": "sub-syn0001", "rating": "excellent"}, {"image": "sub-syn0002", "rating": "poor"}]
    (tmp_path / "form.json").write_text(json.dumps(form(folder, images=images)))
    check = check_of(folder, tmp_path / "form.json", "", 0, "", "")
    assert check.rating == "1 of 2 images are not acceptable, first sub-syn0002"


@pytest.mark.parametrize("changes", [
    {"release": "0" * 64}, {"images": []}, {"images": [{"image": "sub-01", "rating": "acceptable"}]}, {"minutes": -1},
    {"images": [{"image": "sub-syn0001", "rating": "looks like Mr. Miller"}]}, {"likeness": 0.97}, {"kind": "approval"},
    {"images": 2 * [{"image": "sub-syn0001", "rating": "acceptable"}]},
    {"images": [{"image": "sub-syn0001", "rating": "acceptable", "artefacts": ["a patient"]}]},
])
def test_a_form_that_says_anything_else_is_refused(folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "form.json").write_text(json.dumps(form(folder, **changes)))
    with pytest.raises(DataRefused):
        check_of(folder, tmp_path / "form.json", "", 0, "", "")


def test_nobody_is_said_to_have_looked_twice_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "form.json").write_text(json.dumps(form(folder)))
    for words in ((tmp_path / "form.json", "me", 3, "acceptable", ""), (None, "", 3, "acceptable", "")):
        with pytest.raises(UsageError):
            check_of(folder, *words)
    with pytest.raises(DataRefused, match="no ratings can be read"):
        OutputCheck.read(tmp_path / "absent.json")


def test_form_and_type_know_the_same_words() -> None:
    fields = ImageRating.model_json_schema()["properties"]
    assert tuple(fields["rating"]["enum"]) == RATINGS
    assert tuple(fields["artefacts"]["items"]["enum"]) == ARTEFACTS


@browser
@pytest.mark.slow
def test_in_a_browser_the_form_saves_what_the_command_reads(folder: Path, cohort: Cohort, tmp_path: Path) -> None:
    release = Release.read(folder)
    rate = write_rating_page(release, tmp_path, 24)
    neighbours = write_neighbour_page(release, nearest(release, cohort), "north", tmp_path)
    saved = tmp_path / "saved"
    saved.mkdir()
    with chrome(tmp_path / "profile") as tab:
        tab.call("Browser.setDownloadBehavior", browser=True, behavior="allow", downloadPath=str(saved))
        for page in (neighbours, rate):
            for width in (390, 1280):
                tab.open(page, width)
                assert faults(tab) == []
        tab.js("document.querySelector('button').click()")
        assert tab.js("document.getElementById('said').textContent") == "", "nothing is saved before every image is rated"
        tab.js("document.getElementById('role').value = 'radiologist'")
        tab.js("document.querySelectorAll('input[value=acceptable]').forEach(box => box.click())")
        tab.js("document.querySelector('input[value=blur]').click()")
        tab.js("document.querySelector('button').click()")
        assert tab.js("document.getElementById('said').textContent").startswith("Saved")
        for _ in range(200):
            if list(saved.glob("output-check.json")):
                break
            tab.js("new Promise(done => setTimeout(done, 50))")
        assert tab.said == []
    check = check_of(folder, saved / "output-check.json", "", 0, "", "")
    assert (check.looked_at, check.rating, check.images[0]["artefacts"]) == (3, "acceptable", ["blur"])
