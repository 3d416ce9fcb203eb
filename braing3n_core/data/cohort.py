"""One hospital's patients as training sees them: volumes on the plan's grid, conditions, and who is held out.

A file that cannot be used is listed with its reason and left out; only a folder without a single usable scan is refused. What
was computed once lies in a cache named by the content it came from, so a second load registers nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core.data import prepared
from braing3n_core.data.bids import Entry, read_bids
from braing3n_core.data.cache import Cache
from braing3n_core.data.preprocess import Method
from braing3n_core.data.scans import Excluded, ScanFile
from braing3n_core.errors import DataRefused, PlanRefused
from braing3n_core.models.brain import Condition
from braing3n_core.morphometry import Morphometry
from braing3n_core.plan import T1W, Categorical, Continuous, TrainingPlan

__all__ = ["Cohort", "Excluded", "Patient", "Scan", "load_cohort"]

_MEASURES = tuple(name.removesuffix("_ml") for name in Morphometry.__dataclass_fields__)
Progress = Callable[[int, int], None]                        # scans done, scans in all


@dataclass(frozen=True)
class Scan:
    """One visit. Every variable of the plan is in `conditions`, None where it is not known."""

    volume: Tensor                                           # (1, D, H, W) float32 on the plan's grid, in [0, 1.3]
    conditions: dict[str, Condition]
    modality: str = T1W


@dataclass(frozen=True)
class Patient:
    """The unit of privacy and of the split: one person with all scans."""

    participant: str
    scans: tuple[Scan, ...]                                  # T1w, at least one; of each modality, in a plan without a prior
    held_out: bool
    others: tuple[Scan, ...] = ()                            # of the plan's other modalities


@dataclass(frozen=True)
class Cohort:
    """Everything one site trains on, and what it left out."""

    patients: tuple[Patient, ...]
    excluded: tuple[Excluded, ...]

    @property
    def training(self) -> tuple[Patient, ...]:
        """Patients that gradients may come from."""
        return tuple(patient for patient in self.patients if not patient.held_out)

    @property
    def held_out(self) -> tuple[Patient, ...]:
        """Patients that are never trained on."""
        return tuple(patient for patient in self.patients if patient.held_out)


def load_cohort(bids: Path, plan: TrainingPlan, cache: Path, progress: Progress | None = None) -> Cohort:
    """Read, preprocess and measure every usable scan of a BIDS folder, of the modalities that the plan knows.

    Raises DataRefused if the folder, its table or a needed column is missing, or if not one scan can be used. Stopping it
    keeps every scan that was finished.
    """
    _refuse_unknown_measures(plan)
    entries, excluded = read_bids(bids, plan.variables, plan.modalities[1:])
    kept = Cache(cache)
    try:
        read, unusable = _load(entries, plan, kept, progress)
    finally:
        kept.close()
    usable, alone = _with_t1w(read, plan.modalities[1:])
    left_out = [*excluded, *unusable, *alone]
    if not usable:
        reason = left_out[0].reason if left_out else "there are none"
        raise DataRefused(f"no scan in {bids} can be used, {len(left_out)} left out, the first because: {reason}")
    held_out = held_out_of(list(usable), plan.seed, plan.data.held_out)
    patients = tuple(Patient(name, own, name in held_out, others) for name, (own, others) in usable.items())
    return Cohort(patients, tuple(sorted(left_out, key=lambda one: one.file)))


def _load(
    entries: tuple[Entry, ...], plan: TrainingPlan, cache: Cache, progress: Progress | None
) -> tuple[dict[str, tuple[Scan, ...]], list[Excluded]]:
    usable: dict[str, tuple[Scan, ...]] = {}
    left_out: list[Excluded] = []
    owner: dict[str, str] = {}                               # content of a scan -> the patient it belongs to
    done, total = 0, sum(len(entry.scans) for entry in entries)
    for entry in entries:
        scans = []
        for file in entry.scans:
            try:
                scans.append(_scan(file, entry, plan, cache, owner))
            except DataRefused as error:
                left_out.append(Excluded(file.file, str(error)))
            done += 1
            if progress:
                progress(done, total)
        if scans:
            usable[entry.participant] = tuple(scans)
    return usable, left_out


def _with_t1w(
    read: Mapping[str, tuple[Scan, ...]], others: Sequence[str]
) -> tuple[dict[str, tuple[tuple[Scan, ...], tuple[Scan, ...]]], list[Excluded]]:
    """Each patient's scans, those of `others` apart, and who has no T1w: nothing can be learned of a brain that is not seen."""
    usable, alone = {}, []
    for name, scans in read.items():
        own = tuple(scan for scan in scans if scan.modality not in others)
        if own:
            usable[name] = own, tuple(scan for scan in scans if scan.modality in others)
        else:
            alone.append(Excluded(name, f"it has {scans[0].modality} and no T1w that can be used; add the T1w"))
    return usable, alone


def held_out_of(participants: list[str], seed: int, part: float) -> set[str]:
    """About `part` of the participants, each decided by a hash of its own name: who joins later changes nobody's side.

    The exception that two or more patients need: if all fall on one side, the one nearest to the threshold changes it.
    """
    place = {name: _uniform(f"{seed}/{name}") for name in participants}
    held_out = {name for name in participants if place[name] < part}
    if len(participants) >= 2 and not held_out:
        held_out = {min(place, key=lambda name: place[name])}
    if len(participants) >= 2 and len(held_out) == len(participants):
        held_out.remove(max(place, key=lambda name: place[name]))
    return held_out


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _scan(file: ScanFile, entry: Entry, plan: TrainingPlan, cache: Cache, owner: dict[str, str]) -> Scan:
    if owner.setdefault(cache.digest(file.path), entry.participant) != entry.participant:
        # One person under two names would be protected half as well and could sit on both sides of the split.
        raise DataRefused(f"{file.path.name} is the same file as a scan of another patient; keep it with the one it belongs to")
    volume, record = prepared.load(file.path, Method.of(plan, file.modality), cache)
    measured: Mapping[str, float] = record["measured"]
    conditions = {variable.name: _condition(variable, file, entry, measured) for variable in plan.variables}
    return Scan(volume, conditions, file.modality)


def _condition(variable: Continuous | Categorical, file: ScanFile, entry: Entry, measured: Mapping[str, float]) -> Condition:
    match variable.source:
        case "participants":
            return entry.at(file.session)[variable.name]
        case "modality":
            return file.modality if file.modality in variable.levels else None
        case "measured":
            value = measured.get(f"{variable.name}_ml")      # only where fluid is dark is it measured alike
            return None if value is None else _within(variable, value)


def _within(variable: Continuous | Categorical, value: float) -> float:
    if not (isinstance(variable, Continuous) and variable.low <= value <= variable.high):
        raise DataRefused(f"{variable.name} is {value:.1f} ml, outside the plan's range; look at the scan or widen the range")
    return value


def _refuse_unknown_measures(plan: TrainingPlan) -> None:
    for variable in plan.variables:
        if variable.source == "measured" and variable.name not in _MEASURES:
            raise PlanRefused(f"the plan measures {variable.name!r}; what can be measured is {', '.join(_MEASURES)}")
