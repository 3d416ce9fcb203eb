"""What a BIDS folder says: the scans a plan can use, and what participants.tsv and sessions.tsv know of each patient.

A table that cannot answer what the plan asks is refused; a patient whose row or scans cannot be used is left out with the
reason, and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from braing3n_core.data.scans import MODALITIES, Excluded, ScanFile, find_bids
from braing3n_core.data.tables import NOT_AVAILABLE, Row, read_table
from braing3n_core.errors import DataRefused
from braing3n_core.models.brain import Condition
from braing3n_core.plan import Categorical, Continuous

__all__ = ["Entry", "Excluded", "find_scans", "read_bids"]

TABLE = "participants.tsv"
NEEDED = ("age", "sex", "diagnosis")                         # a plan that names these needs their columns; others may be absent
_ID = "participant_id"
_SESSION = "session_id"
_SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
Variables = Sequence[Continuous | Categorical]
Conditions = dict[str, Condition]


@dataclass(frozen=True)
class Entry:
    """One patient who has both a usable row and at least one scan."""

    participant: str
    scans: tuple[ScanFile, ...]                              # in the order of their names
    conditions: Conditions                                   # of the variables that come from the table
    visits: Mapping[str, Conditions]                         # session -> what sessions.tsv says otherwise

    def at(self, session: str) -> Conditions:
        """What is known of the patient at one visit."""
        return self.conditions | self.visits.get(session, {})


def read_bids(
    folder: Path, variables: Variables, others: Sequence[str] = ()
) -> tuple[tuple[Entry, ...], tuple[Excluded, ...]]:
    """The usable patients of a BIDS folder, sorted by name, and everything that was left out.

    `others` are modalities that are read besides those that the variables know. Raises DataRefused if the folder or its table
    is missing, or the table lacks a column that a variable of the plan needs.
    """
    scans, unusable = find_scans(folder, (*modalities_of(variables), *others))
    rows = _by_patient(folder, [v.name for v in variables if v.source == "participants" and v.name in NEEDED])
    entries, excluded = [], list(unusable)
    for name in sorted(scans.keys() | rows.keys()):
        try:
            entries.append(_entry(folder, name, scans.get(name, ()), rows.get(name, []), variables))
        except DataRefused as error:
            files = [scan.file for scan in scans.get(name, ())] or [f"{TABLE}: {name}"]
            excluded += [Excluded(file, str(error)) for file in files]
    return tuple(entries), tuple(excluded)


def find_scans(
    folder: Path, modalities: Sequence[str] = ("T1w",)
) -> tuple[dict[str, tuple[ScanFile, ...]], tuple[Excluded, ...]]:
    """Patient -> scans of these modalities, and files that only look like scans. Raises DataRefused if there are none."""
    found = find_bids(folder)
    wanted = [scan for scan in found.scans if scan.modality in modalities]
    if not (wanted or found.excluded):
        names = " or ".join(f"*_{modality}.nii[.gz]" for modality in modalities)
        raise DataRefused(f"no sub-*/[ses-*/]anat/{names} in data folder {folder}; name a BIDS folder with such scans")
    by_patient: dict[str, tuple[ScanFile, ...]] = {}
    for scan in wanted:
        by_patient[scan.participant] = (*by_patient.get(scan.participant, ()), scan)
    return by_patient, found.excluded


def modalities_of(variables: Variables) -> tuple[str, ...]:
    """Those that a plan's variables can tell apart; T1w if they know none."""
    for variable in variables:
        if isinstance(variable, Categorical) and variable.source == "modality":
            return tuple(level for level in variable.levels if level in MODALITIES)
    return ("T1w",)


def _entry(folder: Path, name: str, scans: tuple[ScanFile, ...], rows: list[Row], variables: Variables) -> Entry:
    if not rows:
        raise DataRefused(f"{name} has no row in {TABLE}; add one (n/a where a value is unknown)")
    if len(rows) > 1:
        raise DataRefused(f"{name} has {len(rows)} rows in {TABLE}, so its values are uncertain; keep one")
    if not scans:
        wanted = " or ".join(modalities_of(variables))
        raise DataRefused(f"{name} has no {wanted} scan in its folder; add anat/{name}_T1w.nii.gz or remove the row")
    table = [variable for variable in variables if variable.source == "participants"]
    conditions = {variable.name: _value(variable, rows[0].get(variable.name, "n/a")) for variable in table}
    return Entry(name, scans, conditions, _visits(folder / name / f"{name}_sessions.tsv", table))


def _visits(path: Path, variables: Variables) -> dict[str, Conditions]:
    """What an optional sessions.tsv says of each visit: only columns that name a variable, only cells that are known."""
    if not path.is_file():
        return {}
    header, rows = read_table(path)
    if _SESSION not in header:
        raise DataRefused(f"{path.name} has no column {_SESSION}, so no visit can be matched; add it")
    asked = [variable for variable in variables if variable.name in header]
    visits: dict[str, Conditions] = {}
    for row in rows:
        values = {variable.name: _value(variable, row[variable.name]) for variable in asked}
        visits["ses-" + row[_SESSION].removeprefix("ses-")] = {name: v for name, v in values.items() if v is not None}
    return visits


def _value(variable: Continuous | Categorical, cell: str) -> Condition:
    """One cell as the plan understands it; None where it is not known. Raises DataRefused for a value that cannot be."""
    if cell.lower() in NOT_AVAILABLE:
        return None
    if isinstance(variable, Categorical):
        return _level(variable, cell)
    try:
        number = float(cell)
    except ValueError as error:
        raise DataRefused(f"{variable.name} is {cell[:40]!r}, not a number; correct the cell or write n/a") from error
    if not variable.low <= number <= variable.high:
        known = f"{variable.low:g} to {variable.high:g} {variable.unit}"
        raise DataRefused(f"{variable.name} is {cell[:40]}, possible are {known}; correct the cell or write n/a")
    return number


def _level(variable: Categorical, cell: str) -> str:
    wanted = _SEX.get(cell.lower(), cell) if variable.name == "sex" else cell
    for level in variable.levels:
        if level.lower() == wanted.lower():
            return level
    known = ", ".join(variable.levels)
    raise DataRefused(f"{variable.name} is {cell[:40]!r}, known are {known}; correct the cell or write n/a")


def _by_patient(folder: Path, needed: Sequence[str]) -> dict[str, list[Row]]:
    """Patient -> the rows with that name."""
    header, lines = read_table(folder / TABLE)
    if _ID not in header:
        raise DataRefused(f"{TABLE} has no column {_ID}, so no scan can be matched; save it tab-separated with that column")
    for name in needed:
        if name not in header:
            raise DataRefused(f"{TABLE} has no column {name!r}, which the plan needs; add it (n/a where unknown)")
    rows: dict[str, list[Row]] = {}
    for row in lines:
        rows.setdefault(_named(row[_ID]), []).append(row)
    return rows


def _named(cell: str) -> str:
    """BIDS asks for sub-; tables made by hand often leave it out, and no two patients differ by it alone."""
    return cell if cell.startswith("sub-") else f"sub-{cell}"
