"""A name says what a scan is, or the scan is left out; nothing outside the folder is ever taken for part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from braing3n_core.data.scans import Excluded, find_bids, find_listed, modality_of
from braing3n_core.errors import DataRefused


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("sub-1_T1w.nii", "T1w"), ("sub-1_T2w.nii.gz", "T2w"), ("sub-1_FLAIR.mgz", "FLAIR"), ("sub-1_T1ce.nii", "T1ce"),
        ("sub-1_T1gd.nii", "T1ce"), ("sub-1_ce-gadolinium_T1w.nii.gz", "T1ce"), ("sub-1_ses-2_acq-post_run-1_T1w.nii", "T1ce"),
        ("sub-1_acq-mprage_T1w.nii", "T1w"), ("sub-1_acq-postop_T1w.nii", "T1w"), ("sub-1_acq-gad_FLAIR.nii", "FLAIR"),
        ("sub-1_flair.nii", "FLAIR"),
    ],
)  # fmt: skip
def test_a_name_says_what_was_scanned(name: str, modality: str) -> None:
    assert modality_of(name) == modality


@pytest.mark.parametrize("name", ["sub-1_bold.nii.gz", "sub-1_T1w.json", "T1w", "sub-1_T1map.nii"])
def test_a_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(DataRefused, match="does not say what was scanned"):
        modality_of(name)


def touched(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_every_modality_of_every_visit_is_found(tmp_path: Path) -> None:
    root = touched(
        tmp_path, "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz", "sub-1/ses-a/anat/sub-1_ses-a_FLAIR.mgz",
        "sub-1/ses-b/anat/sub-1_ses-b_T2w.nii", "sub-2/anat/sub-2_ce-gd_T1w.nii.gz", "sub-2/anat/sub-2_T1w.json",
        "sub-2/func/sub-2_T1w.nii", "derivatives/sub-2/anat/sub-2_T1w.nii", "sub-2/anat/._sub-2_T1w.nii",
    )  # fmt: skip
    found = find_bids(root)
    assert not found.excluded
    assert [(scan.participant, scan.session, scan.modality) for scan in found.scans] == [
        ("sub-1", "ses-a", "FLAIR"), ("sub-1", "ses-a", "T1w"), ("sub-1", "ses-b", "T2w"), ("sub-2", "", "T1ce"),
    ]  # fmt: skip


def test_a_scan_in_the_folder_of_another_visit_is_left_out(tmp_path: Path) -> None:
    root = touched(tmp_path, "sub-1/ses-a/anat/sub-1_ses-b_T1w.nii.gz")
    assert "another visit" in find_bids(root).excluded[0].reason


def test_a_link_inside_the_folder_is_followed_and_one_out_of_it_is_not(tmp_path: Path) -> None:
    """As git-annex keeps its files: the name is a link to the content, in the same folder."""
    root = touched(tmp_path / "bids", "objects/f00", "sub-1/anat/x")
    outside = touched(tmp_path, "secret.nii") / "secret.nii"
    os.symlink("../../objects/f00", root / "sub-1/anat/sub-1_T1w.nii.gz")
    os.symlink(outside, root / "sub-1/anat/sub-1_T2w.nii.gz")
    found = find_bids(root)
    assert [scan.modality for scan in found.scans] == ["T1w"]
    assert "link out of the data folder" in found.excluded[0].reason
    assert str(tmp_path) not in found.excluded[0].reason


def test_a_folder_that_is_a_link_out_gives_no_scans(tmp_path: Path) -> None:
    touched(tmp_path / "other", "sub-1/anat/sub-1_T1w.nii.gz")
    (tmp_path / "bids").mkdir()
    os.symlink(tmp_path / "other" / "sub-1", tmp_path / "bids" / "sub-1")
    found = find_bids(tmp_path / "bids")
    assert not found.scans
    assert len(found.excluded) == 1


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_any_separator_is_read(tmp_path: Path, separator: str) -> None:
    root = touched(tmp_path, "a.nii", "b.mgz")
    table = tmp_path / "list.txt"
    table.write_text("\n".join(separator.join(row) for row in (("who", "f"), ("p1", "a.nii"), ("sub-p2", "b.mgz"))))
    found = find_listed(root, table, {"file": "f", "participant": "who"})
    assert [(scan.participant, scan.session) for scan in found.scans] == [("sub-p1", ""), ("sub-p2", "")]
    assert {scan.modality for scan in found.scans} == {"T1w"}


@pytest.mark.parametrize("name", ["../up", "a b", "sub-", "", "ü", "x" * 5 + "\t"])
def test_a_patient_whose_name_could_be_a_path_is_left_out(tmp_path: Path, name: str) -> None:
    root = touched(tmp_path, "a.nii")
    (tmp_path / "list.csv").write_text(f'f,who\na.nii,"{name}"\n')
    found = find_listed(root, tmp_path / "list.csv", {"file": "f", "participant": "who"})
    assert (len(found.scans), len(found.excluded)) in ((0, 1), (1, 0))
    assert all(scan.participant == "sub-xxxxx" for scan in found.scans)


def test_a_reason_and_its_remedy_are_two_things() -> None:
    one = Excluded("x", "it is cut, 3 bytes; are missing; copy it again")
    assert (one.why, one.remedy) == ("it is cut, 3 bytes; are missing", "copy it again")
