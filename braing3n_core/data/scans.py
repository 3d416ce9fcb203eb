"""Which scans a hospital has: a BIDS folder, or any folder and a table that names its files. Looks at names, opens nothing.

Names that are understood, the ending .nii, .nii.gz or .mgz:
    T1w     *_T1w
    T2w     *_T2w
    FLAIR   *_FLAIR
    T1ce    *_T1ce, *_T1gd, *_T1c; *_ce-<agent>_*_T1w; *_acq-<label>_*_T1w with ce, gd, gad, gadolinium, post or postcontrast
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from braing3n_core.data.tables import NOT_AVAILABLE, delimiter_of, read_table
from braing3n_core.errors import DataRefused, UsageError

MODALITIES = ("T1w", "T2w", "FLAIR", "T1ce")
COLUMNS = ("file", "participant", "session", "modality")     # of a table; the first two are needed
_SUFFIXES = {"t1w": "T1w", "t2w": "T2w", "flair": "FLAIR", "t1ce": "T1ce", "t1gd": "T1ce", "t1c": "T1ce"}
_ENDING = re.compile(r"_(T1w|T2w|FLAIR|T1ce|T1gd|T1c)\.(nii|nii\.gz|mgz)$", re.IGNORECASE)
_NAME = re.compile(r"sub-[0-9A-Za-z]+(_[a-z]+-[0-9A-Za-z]+)*_[0-9A-Za-z]+\.(nii|nii\.gz|mgz)")
_CONTRAST = re.compile(r"_ce-[0-9A-Za-z]+_|_acq-(ce|gd|gad|gadolinium|post|postcontrast)_", re.IGNORECASE)
_LABEL = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class Excluded:
    """What was left out, relative to the data folder, and why. Stays at the site."""

    file: str
    reason: str                                              # what and why; what to do next

    @property
    def why(self) -> str:
        """The reason without its remedy."""
        return self.reason.rpartition("; ")[0] or self.reason

    @property
    def remedy(self) -> str:
        """What to do next."""
        return self.reason.rpartition("; ")[2]


@dataclass(frozen=True)
class ScanFile:
    """One file that is named as a scan."""

    path: Path
    file: str                                                # relative to the data folder
    participant: str                                         # sub-*
    session: str                                             # ses-*, or empty
    modality: str                                            # one of MODALITIES


@dataclass(frozen=True)
class Found:
    """The scans of a folder, sorted by name, and what looks like one but cannot be used."""

    scans: tuple[ScanFile, ...]
    excluded: tuple[Excluded, ...]


def find_bids(root: Path) -> Found:
    """Every `sub-*/[ses-*/]anat/*` that is named as a scan. Raises DataRefused if there is no such folder.

    A link is followed only to a place inside `root`; derivatives lie elsewhere and are never found.
    """
    if not root.is_dir():
        raise DataRefused(f"no data folder {root}; name the BIDS folder that holds participants.tsv and sub-*/")
    scans, excluded = [], []
    for path in _anatomical(root):
        try:
            scans.append(_scan(root, path))
        except DataRefused as error:
            excluded.append(Excluded(path.relative_to(root).as_posix(), str(error)))
    return Found(tuple(scans), tuple(excluded))


def find_listed(root: Path, table: Path, columns: Mapping[str, str]) -> Found:
    """The scans that a CSV or TSV names; files are relative to `root`. Raises DataRefused for a table that cannot be read.

    `columns` maps `file`, `participant` and, if there are such, `session` and `modality` to the table's own names. Without a
    modality every scan is T1w.
    """
    header, rows = read_table(table, delimiter_of(table))
    for role, name in columns.items():
        if name not in header:
            raise DataRefused(f"{table.name} has no column {name!r} for {role}; it has {', '.join(header)[:200]}")
    scans, excluded = [], []
    seen: set[Path] = set()
    for number, row in enumerate(rows, start=2):
        file = row[columns["file"]]
        try:
            scans.append(_listed(root, {role: row[name] for role, name in columns.items()}, seen))
        except DataRefused as error:
            excluded.append(Excluded(file or f"{table.name} row {number}", str(error)))
    return Found(tuple(sorted(scans, key=lambda scan: scan.file)), tuple(excluded))


def columns_of(words: str) -> dict[str, str]:
    """`file=path,participant=id` as a map. Raises UsageError unless it names the file and the participant."""
    pairs = [word.partition("=") for word in words.split(",")]
    found = {role.strip(): name.strip() for role, _, name in pairs}
    if not (all(name.strip() for _, _, name in pairs) and {"file", "participant"} <= found.keys() <= set(COLUMNS)):
        raise UsageError(f"--columns {words}: write file=COLUMN,participant=COLUMN[,session=COLUMN][,modality=COLUMN]")
    return found


def _anatomical(root: Path) -> Iterator[Path]:
    """Entries of every anat folder that end as a scan does, sorted."""
    for patient in _folders(root, "sub-"):
        for home in (patient, *_folders(patient, "ses-")):
            anat = home / "anat"
            if anat.is_dir():
                yield from sorted(anat / name for name in os.listdir(anat) if _ENDING.search(name) and not name.startswith("."))


def _folders(home: Path, start: str) -> list[Path]:
    try:
        return sorted(path for path in home.iterdir() if path.name.startswith(start) and path.is_dir())
    except PermissionError as error:
        raise DataRefused(f"{home.name} may not be listed by this user; change its permissions and run again") from error


def _scan(root: Path, path: Path) -> ScanFile:
    inside(root, path)
    patient = path.relative_to(root).parts[0]
    visit = path.parent.parent.name if path.parent.parent != root / patient else ""
    if not (_NAME.fullmatch(path.name) and _NAME.fullmatch(f"{patient}_T1w.nii")):
        raise DataRefused("its name is not a BIDS name; use letters and digits: sub-01[_ses-1]_T1w.nii.gz")
    if not path.name.startswith(f"{patient}_"):
        raise DataRefused(f"the folder {patient} holds a scan named for another patient; move it where it belongs")
    if visit and "_ses-" in path.name and f"_{visit}_" not in path.name:
        raise DataRefused(f"the folder {visit} holds a scan named for another visit; move it where it belongs")
    return ScanFile(path, path.relative_to(root).as_posix(), patient, visit, modality_of(path.name))


def modality_of(name: str) -> str:
    """The modality that a file's name says. Raises DataRefused for a name that says none."""
    ending = _ENDING.search(name)
    if not ending:
        raise DataRefused(f"its name does not say what was scanned; end it in one of {', '.join(MODALITIES)}")
    modality = _SUFFIXES[ending.group(1).lower()]
    return "T1ce" if modality == "T1w" and _CONTRAST.search(name) else modality


def inside(root: Path, path: Path) -> None:
    """Raises DataRefused unless the file, its links followed, is there and lies in `root`."""
    try:
        place = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:                 # RuntimeError: links in a circle, before Python 3.13
        raise DataRefused("it is a link to nothing, or is not there; copy the scan itself into the folder") from error
    if not place.is_relative_to(root.resolve()):
        raise DataRefused("it is a link out of the data folder; copy the scan itself into the folder")
    if not place.is_file():
        raise DataRefused("it is no ordinary file; put the scan itself there")


def _listed(root: Path, row: Mapping[str, str], seen: set[Path]) -> ScanFile:
    file, modality = row["file"], row.get("modality", "T1w")
    if file in NOT_AVAILABLE or "\0" in file:
        raise DataRefused("this row names no file; add one or remove the row")
    path = root / file
    inside(root, path)
    if not path.name.lower().endswith((".nii", ".nii.gz", ".mgz")):
        raise DataRefused("its name does not end in .nii, .nii.gz or .mgz; convert the scan")
    if modality.lower() not in _SUFFIXES:
        raise DataRefused(f"its modality is {modality[:40]!r}, known are {', '.join(MODALITIES)}; correct the cell")
    if path.resolve() in seen:
        raise DataRefused("another row names this file as well; keep one row")
    seen.add(path.resolve())
    session = row.get("session", "")
    visit = "" if session in NOT_AVAILABLE else _entity("ses-", session)
    return ScanFile(path, file, _entity("sub-", row["participant"]), visit, _SUFFIXES[modality.lower()])


def _entity(prefix: str, cell: str) -> str:
    """`sub-01` from `01` or `sub-01`; no two patients differ by the prefix alone."""
    label = cell.removeprefix(prefix)
    if not _LABEL.fullmatch(label):
        raise DataRefused(f"{cell[:40]!r} is no name for a patient or visit; use letters and digits alone")
    return prefix + label
