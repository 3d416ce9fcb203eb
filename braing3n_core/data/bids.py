"""What a BIDS folder says: which T1w scans there are, and what participants.tsv knows of each patient.

A table that cannot answer what the plan asks is refused; a patient whose row or scans cannot be used is left out with the
reason, and the others go on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from braing3n_core.errors import DataRefused
from braing3n_core.models.brain import Condition
from braing3n_core.plan import Categorical, Continuous

TABLE = "participants.tsv"
NEEDED = ("age", "sex", "diagnosis")                         # a plan that names these needs their columns; others may be absent
_ID = "participant_id"
_PATIENT = re.compile(r"^sub-[0-9A-Za-z]+$")
_NOT_AVAILABLE = {"n/a", ""}                                 # BIDS writes n/a; an empty cell can mean nothing else
_SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
_PATTERNS = tuple(f"{visit}anat/sub-*_T1w.nii{packed}" for visit in ("", "ses-*/") for packed in ("", ".gz"))
_MOST_TABLE_BYTES = 2**26
Variables = Sequence[Continuous | Categorical]


@dataclass(frozen=True)
class Excluded:
    """What was left out, relative to the BIDS folder, and why. Stays at the site."""

    file: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One patient who has both a usable row and at least one scan."""

    participant: str
    scans: tuple[Path, ...]                                  # in the order of their names
    conditions: dict[str, Condition]                         # of the variables that come from the table


def read_bids(folder: Path, variables: Variables) -> tuple[tuple[Entry, ...], tuple[Excluded, ...]]:
    """The usable patients of a BIDS folder, sorted by name, and everything that was left out.

    Raises DataRefused if the folder or its table is missing, or the table lacks a column that a variable of the plan needs.
    """
    scans = find_scans(folder)
    rows = _read_table(folder / TABLE, [v.name for v in variables if v.source == "participants" and v.name in NEEDED])
    entries, excluded = [], []
    for name in sorted(scans.keys() | rows.keys()):
        try:
            entries.append(_entry(name, scans.get(name, ()), rows.get(name, []), variables))
        except DataRefused as error:
            files = [path.relative_to(folder).as_posix() for path in scans.get(name, ())] or [f"{TABLE}: {name}"]
            excluded += [Excluded(file, str(error)) for file in files]
    return tuple(entries), tuple(excluded)


def find_scans(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Patient -> T1w files under `sub-*/[ses-*/]anat`. Derivatives lie elsewhere and are never found."""
    if not folder.is_dir():
        raise DataRefused(f"no data folder {folder}; name the BIDS folder that holds {TABLE} and sub-*/")
    found: dict[str, tuple[Path, ...]] = {}
    for home in sorted(folder.glob("sub-*")):
        if home.is_dir() and (scans := sorted({path for pattern in _PATTERNS for path in home.glob(pattern)})):
            found[home.name] = tuple(scans)
    if not found:
        raise DataRefused(f"no sub-*/[ses-*/]anat/*_T1w.nii[.gz] in data folder {folder}; name a BIDS folder with T1w scans")
    return found


def _entry(name: str, scans: tuple[Path, ...], rows: list[Mapping[str, str]], variables: Variables) -> Entry:
    if not rows:
        raise DataRefused(f"{name} has no row in {TABLE}; add one (n/a where a value is unknown)")
    if len(rows) > 1:
        raise DataRefused(f"{name} has {len(rows)} rows in {TABLE}, so its values are uncertain; keep one")
    if not _PATIENT.match(name):
        raise DataRefused(f"{name!r} is not a BIDS name; call it sub- followed by letters and digits")
    if not scans:
        raise DataRefused(f"{name} has no T1w scan in its folder; add anat/{name}_T1w.nii.gz or remove the row")
    if any(not path.name.startswith(f"{name}_") for path in scans):
        raise DataRefused(f"the folder {name} holds a scan named for another patient; move it where it belongs")
    table = [variable for variable in variables if variable.source == "participants"]
    return Entry(name, scans, {variable.name: _value(variable, rows[0].get(variable.name, "n/a")) for variable in table})


def _value(variable: Continuous | Categorical, cell: str) -> Condition:
    """One cell as the plan understands it; None where it is not known. Raises DataRefused for a value that cannot be."""
    if cell.lower() in _NOT_AVAILABLE:
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


def _read_table(path: Path, needed: Sequence[str]) -> dict[str, list[Mapping[str, str]]]:
    """Patient -> the rows with that name, cells stripped. Strict: one header, equal cells in every row, UTF-8."""
    lines = [line for line in csv.reader(_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if any(line)]
    header = [name.strip() for name in lines[0]] if lines else []
    if _ID not in header:
        raise DataRefused(f"{TABLE} has no column {_ID}, so no scan can be matched; save it tab-separated with that column")
    if len(set(header)) != len(header):
        raise DataRefused(f"{TABLE} names a column twice; keep one of each")
    for name in needed:
        if name not in header:
            raise DataRefused(f"{TABLE} has no column {name!r}, which the plan needs; add it (n/a where unknown)")
    rows: dict[str, list[Mapping[str, str]]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataRefused(f"{TABLE} row {number} has {len(line)} cells under {len(header)} columns; separate them by tabs")
        row = dict(zip(header, (cell.strip() for cell in line), strict=True))
        rows.setdefault(_named(row[_ID]), []).append(row)
    return rows


def _named(cell: str) -> str:
    """BIDS asks for sub-; tables made by hand often leave it out, and no two patients differ by it alone."""
    return cell if cell.startswith("sub-") else f"sub-{cell}"


def _text(path: Path) -> str:
    try:
        if not path.stat().st_size <= _MOST_TABLE_BYTES:
            raise DataRefused(f"{TABLE} has more than {_MOST_TABLE_BYTES >> 20} MiB, too many for patients; check the file")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataRefused(f"no {TABLE} in data folder {path.parent}, so no patient is known; add it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataRefused(f"{TABLE} is not readable as UTF-8 text; save it again as tab-separated UTF-8") from error
