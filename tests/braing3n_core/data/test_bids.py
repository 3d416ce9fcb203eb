"""What a folder says is believed only as far as it can be true; one patient's fault never costs another."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.data.bids import Entry, Excluded, find_scans, read_bids
from braing3n_core.errors import DataRefused
from braing3n_core.plan import DEFAULT_VARIABLES

DATA = Path(__file__).parents[3].parent / "shared" / "data"
HEADER = "participant_id\tage\tsex\tdiagnosis"


def folder(root: Path, rows: str, scans: tuple[str, ...] = ("sub-01", "sub-02")) -> Path:
    """Empty files where scans would be: nothing here opens an image."""
    for name in scans:
        visit, _, _ = name.partition("/")
        place = root / name / "anat"
        place.mkdir(parents=True)
        (place / f"{visit}_T1w.nii.gz").touch()
    (root / "participants.tsv").write_text(rows, encoding="utf-8")
    return root


def read(root: Path) -> tuple[dict[str, Entry], tuple[Excluded, ...]]:
    entries, excluded = read_bids(root, DEFAULT_VARIABLES)
    return {entry.participant: entry for entry in entries}, excluded


def refusal(root: Path) -> str:
    with pytest.raises(DataRefused) as caught:
        read_bids(root, DEFAULT_VARIABLES)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message
    return message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no data folder" in refusal(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans.zip").touch()
    assert "no data folder" in refusal(tmp_path / "scans.zip")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "_T1w.nii" in refusal(tmp_path)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, HEADER)
    (tmp_path / "participants.tsv").unlink()
    assert "no participants.tsv" in refusal(tmp_path)


def test_a_table_without_participant_id_is_refused(tmp_path: Path) -> None:
    assert "participant_id" in refusal(folder(tmp_path, "id\tage\tsex\tdiagnosis\nsub-01\t30\tF\thealthy\n"))


@pytest.mark.parametrize("missing", ["age", "sex", "diagnosis"])
def test_a_table_without_a_needed_column_is_refused(tmp_path: Path, missing: str) -> None:
    header = HEADER.replace(missing, "notes")
    assert f"no column {missing!r}" in refusal(folder(tmp_path, f"{header}\nsub-01\t30\tF\thealthy\n"))


def test_columns_that_only_some_tables_have_are_optional(tmp_path: Path) -> None:
    entries, _ = read(folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\thealthy\nsub-02\t31\tM\thealthy\n"))
    assert entries["sub-01"].conditions == {"age": 30.0, "sex": "F", "diagnosis": "healthy", "lesions": None}


def test_commas_in_place_of_tabs_are_refused(tmp_path: Path) -> None:
    refusal(folder(tmp_path, "participant_id,age,sex,diagnosis\nsub-01,30,F,healthy\n"))


def test_a_row_of_another_length_is_refused(tmp_path: Path) -> None:
    assert "row 2" in refusal(folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\n"))


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refusal(folder(tmp_path, f"{HEADER}\tage\nsub-01\t30\tF\thealthy\t31\n"))


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, HEADER)
    (root / "participants.tsv").write_bytes(b"\x89PNG\xff\xfe\x00")
    assert "UTF-8" in refusal(root)


@pytest.mark.parametrize("age", ["250", "-3", "5", "nan", "inf", "old", "4O"])
def test_an_impossible_age_leaves_out_that_patient_alone(tmp_path: Path, age: str) -> None:
    entries, excluded = read(folder(tmp_path, f"{HEADER}\nsub-01\t{age}\tF\thealthy\nsub-02\t31\tM\thealthy\n"))
    assert list(entries) == ["sub-02"]
    assert [e.file for e in excluded] == ["sub-01/anat/sub-01_T1w.nii.gz"]
    assert "age" in excluded[0].reason


@pytest.mark.parametrize(("column", "cell"), [("sex", "X"), ("sex", "1"), ("diagnosis", "alien")])
def test_an_unknown_level_leaves_out_that_patient_alone(tmp_path: Path, column: str, cell: str) -> None:
    values = {"age": "30", "sex": "F", "diagnosis": "healthy"} | {column: cell}
    row = "\t".join(["sub-01", *values.values()])
    entries, excluded = read(folder(tmp_path, f"{HEADER}\n{row}\nsub-02\t31\tM\thealthy\n"))
    assert list(entries) == ["sub-02"]
    assert column in excluded[0].reason


@pytest.mark.parametrize(
    ("cell", "wanted"), [("F", "F"), ("f", "F"), ("female", "F"), ("Female", "F"), ("M", "M"), ("m", "M"), ("MALE", "M")]
)
def test_sex_is_read_as_people_write_it(tmp_path: Path, cell: str, wanted: str) -> None:
    entries, _ = read(folder(tmp_path, f"{HEADER}\nsub-01\t30\t{cell}\tHealthy\n", ("sub-01",)))
    assert entries["sub-01"].conditions["sex"] == wanted
    assert entries["sub-01"].conditions["diagnosis"] == "healthy"


@pytest.mark.parametrize("cell", ["n/a", "N/A", ""])
def test_what_is_not_known_is_none_and_never_a_number(tmp_path: Path, cell: str) -> None:
    entries, excluded = read(folder(tmp_path, f"{HEADER}\nsub-01\t{cell}\t{cell}\t{cell}\n", ("sub-01",)))
    assert set(entries["sub-01"].conditions.values()) == {None}
    assert not excluded


def test_a_patient_with_two_rows_is_left_out(tmp_path: Path) -> None:
    rows = f"{HEADER}\nsub-01\t30\tF\thealthy\nsub-01\t60\tF\tdementia\nsub-02\t31\tM\thealthy\n"
    entries, excluded = read(folder(tmp_path, rows))
    assert list(entries) == ["sub-02"]
    assert "2 rows" in excluded[0].reason


def test_a_patient_without_a_scan_is_listed(tmp_path: Path) -> None:
    rows = f"{HEADER}\nsub-01\t30\tF\thealthy\nsub-02\t31\tM\thealthy\nsub-03\t32\tM\thealthy\n"
    entries, excluded = read(folder(tmp_path, rows))
    assert list(entries) == ["sub-01", "sub-02"]
    assert [e.file for e in excluded] == ["participants.tsv: sub-03"]
    assert "no T1w scan" in excluded[0].reason


def test_a_scan_without_a_row_is_listed(tmp_path: Path) -> None:
    entries, excluded = read(folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\thealthy\n"))
    assert list(entries) == ["sub-01"]
    assert "no row" in excluded[0].reason


def test_visits_of_one_patient_stay_together(tmp_path: Path) -> None:
    entries, _ = read(folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\thealthy\n", ("sub-01/ses-1", "sub-01/ses-2")))
    assert [scan.session for scan in entries["sub-01"].scans] == ["ses-1", "ses-2"]


def test_a_scan_named_for_another_patient_is_never_taken_for_this_one(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\thealthy\nsub-02\t31\tM\thealthy\n")
    (root / "sub-01" / "anat" / "sub-02_run-2_T1w.nii.gz").touch()
    entries, excluded = read(root)
    assert [scan.path.name for scan in entries["sub-01"].scans] == ["sub-01_T1w.nii.gz"]
    assert [e.file for e in excluded] == ["sub-01/anat/sub-02_run-2_T1w.nii.gz"]
    assert "another patient" in excluded[0].reason


def test_a_visit_has_its_own_age_and_the_rest_of_the_patient(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEADER}\nsub-01\t30\tF\thealthy\n", ("sub-01/ses-1", "sub-01/ses-2"))
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\tacq_time\nses-1\tn/a\tx\nses-2\t32.5\tx\n")
    entry = read(root)[0]["sub-01"]
    assert [entry.at(scan.session)["age"] for scan in entry.scans] == [30.0, 32.5]
    assert {entry.at(scan.session)["sex"] for scan in entry.scans} == {"F"}


def test_an_impossible_age_at_one_visit_leaves_out_that_patient_alone(tmp_path: Path) -> None:
    rows = f"{HEADER}\nsub-01\t30\tF\thealthy\nsub-02\t31\tM\thealthy\n"
    root = folder(tmp_path, rows, ("sub-01/ses-1", "sub-02"))
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\nses-1\t300\n")
    entries, excluded = read(root)
    assert list(entries) == ["sub-02"]
    assert "age is 300" in excluded[0].reason


def test_only_t1w_of_the_raw_data_is_found(tmp_path: Path) -> None:
    root = folder(tmp_path, HEADER)
    for other in ("derivatives/sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-01/anat/sub-01_T1w.json",
                  "sub-01/func/sub-01_T1w.nii.gz", "sub-02/anat/._sub-02_T1w.nii.gz"):  # fmt: skip
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).touch()
    scans, excluded = find_scans(root)
    assert not excluded
    assert {name: [scan.path.name for scan in found] for name, found in scans.items()} == {
        "sub-01": ["sub-01_T1w.nii.gz"], "sub-02": ["sub-02_T1w.nii.gz"],
    }  # fmt: skip


def test_a_windows_table_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    root = folder(tmp_path, "")
    (root / "participants.tsv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n01\t30\tF\thealthy\r\n".encode())
    assert read(root)[0]["sub-01"].conditions["age"] == 30.0


@pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")
@pytest.mark.parametrize(
    ("site", "patients", "unknown"), [("site-a", 56, 2), ("site-b", 56, 1), ("site-c", 24, 0), ("site-ms", 2, 1)]
)
def test_real_tables_are_read_whole(site: str, patients: int, unknown: int) -> None:
    entries, excluded = read(DATA / site)
    assert not excluded
    assert len(entries) == patients
    assert sum(entry.conditions["sex"] is None for entry in entries.values()) == unknown
