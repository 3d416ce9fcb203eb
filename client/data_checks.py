"""What can be wrong with a hospital's scans and tables, found before anything is trained. Reads everything, changes nothing.

No value of a header's text field is ever shown: a name or a birth date may be in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braing3n_core.data.bids import TABLE, read_bids
from braing3n_core.data.cache import Cache
from braing3n_core.data.scans import Found, ScanFile
from braing3n_core.data.volume import Header, read_header, read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.plan import DEFAULT_VARIABLES, TrainingPlan
from client.findings import Finding, State, some

_THICK_MM = 4.5                                              # the coarsest grid has 4 mm; beyond it ventricles blur away
_BRAIN_ML = (700.0, 2400.0)                                  # signal in a stripped scan, also in template space; a head has 3 l
_SIGNAL = 0.05                                               # of the bright voxels: less is background


@dataclass(frozen=True)
class Seen:
    """One readable scan."""

    file: ScanFile
    header: Header
    signal_ml: float


def check_data(folder: Path, found: Found, cache: Cache, plan: TrainingPlan | None) -> Iterator[Finding]:
    """Every finding about the scans and tables of one BIDS folder."""
    seen, unreadable = _read(found)
    yield _names(found)
    yield _readable(seen, unreadable)
    yield _twins(found, cache)
    yield _visits(found)
    if seen:
        yield _geometry(seen)
        yield _orientation(seen)
        yield _units(seen)
        yield _texts(seen)
        yield _skull(seen)
    yield _columns(folder, plan)


def _read(found: Found) -> tuple[list[Seen], list[str]]:
    seen, unreadable = [], []
    for file in found.scans:
        try:
            header = read_header(file.path)
            values, _ = read_volume(file.path)
        except DataRefused as error:
            unreadable.append(str(error).rpartition("; ")[0])
            continue
        bright = float(np.percentile(values, 98))
        ml = float((values > _SIGNAL * bright).sum()) * float(np.prod(header.voxel_mm)) / 1000
        seen.append(Seen(file, header, ml))
    return seen, unreadable


def _names(found: Found) -> Finding:
    if not found.scans:
        return Finding("scans", "refused", "no file is named as a scan", "name them sub-01/anat/sub-01_T1w.nii.gz")
    kinds = Counter(scan.modality for scan in found.scans)
    words = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    if found.excluded:
        first = found.excluded[0]
        left_out = f"{len(found.excluded)} left out, first {first.file}: {first.why}"
        return Finding("scans", "look", f"{words}; {left_out}", first.remedy)
    return Finding("scans", "ok", words)


def _readable(seen: Sequence[Seen], unreadable: Sequence[str]) -> Finding:
    if not unreadable:
        return Finding("readable", "ok", f"all {len(seen)} files")
    state: State = "look" if seen else "refused"
    return Finding("readable", state, f"{len(unreadable)} are not: {some(unreadable)}", "copy them again from their source")


def _twins(found: Found, cache: Cache) -> Finding:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for scan in found.scans:
        try:
            homes[cache.digest(scan.path)].append(scan.file)
        except DataRefused:
            continue                                         # named by the check before
    twins = [" = ".join(files) for files in homes.values() if len(files) > 1]
    if twins:
        return Finding("duplicates", "look", some(twins), "keep the one whose name is right; the others will be left out")
    return Finding("duplicates", "ok", "no file is there twice")


def _visits(found: Found) -> Finding:
    scans = Counter(scan.participant for scan in found.scans)
    visits = Counter(patient for patient, _ in {(scan.participant, scan.session) for scan in found.scans})
    again = sum(count > 1 for count in visits.values())
    most = max(scans.values(), default=0)
    return Finding("patients", "ok", f"{len(scans)} patients, {again} with several visits, at most {most} scans of one")


def _geometry(seen: Sequence[Seen]) -> Finding:
    thick = [one.file.file for one in seen if max(one.header.voxel_mm) > _THICK_MM]
    sizes = sorted(max(one.header.voxel_mm) for one in seen)
    words = f"largest voxel side {sizes[0]:.2g} to {sizes[-1]:.2g} mm"
    if thick:
        return Finding("geometry", "look", f"{words}; over {_THICK_MM} mm: {some(thick)}", "their measures are rough")
    return Finding("geometry", "ok", words)


def _orientation(seen: Sequence[Seen]) -> Finding:
    kinds = Counter(one.header.axes for one in seen)
    return Finding("orientation", "ok", "stored as " + some([f"{axes} ({count})" for axes, count in kinds.most_common()]))


def _units(seen: Sequence[Seen]) -> Finding:
    silent = [one.file.file for one in seen if not one.header.millimetres]
    if silent:
        return Finding("units", "look", f"{len(silent)} do not say mm: {some(silent)}", "taken as mm; set xyzt_units")
    return Finding("units", "ok", "all in mm")


def _texts(seen: Sequence[Seen]) -> Finding:
    fields = Counter(name for one in seen for name in one.header.texts)
    if fields:
        words = ", ".join(f"{name} non-empty in {count}" for name, count in sorted(fields.items()))
        return Finding("personal data", "look", words, "no header leaves this site; empty the fields all the same")
    return Finding("personal data", "ok", "text fields of all headers are empty")


def _skull(seen: Sequence[Seen]) -> Finding:
    low, high = _BRAIN_ML
    heads = [one.file.file for one in seen if one.signal_ml > high]
    small = [one.file.file for one in seen if one.signal_ml < low]
    if heads or small:
        words = [f"{len(heads)} have more signal than a brain: {some(heads)}"] if heads else []
        words += [f"{len(small)} have less: {some(small)}"] if small else []
        fix = "heads are stripped from the template; name a --brain-mask-command for better" if heads else "look at them"
        return Finding("skull-stripped", "look", "; ".join(words), fix)
    return Finding("skull-stripped", "ok", f"signal of all is {low:.0f} to {high:.0f} ml")


def _columns(folder: Path, plan: TrainingPlan | None) -> Finding:
    """Whether the tables answer what the plan asks, or the default variables where there is no plan."""
    try:
        entries, excluded = read_bids(folder, DEFAULT_VARIABLES if plan is None else plan.variables)
    except DataRefused as error:
        why, _, fix = str(error).rpartition("; ")
        return Finding(TABLE, "refused", why, fix)
    rows = [one for one in excluded if one.file.startswith(TABLE) or "another" not in one.reason]
    if rows:
        return Finding(TABLE, "look", f"{len(entries)} patients usable; {some([one.why for one in rows])}", rows[0].remedy)
    return Finding(TABLE, "ok", f"{len(entries)} patients usable")
