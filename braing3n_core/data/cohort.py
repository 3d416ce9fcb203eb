"""One hospital's patients as training sees them: volumes on the plan's grid, conditions, and who is held out.

A file that cannot be used is listed with its reason and left out; only a folder without a single usable scan is refused. What
was computed once lies in a cache named by the content it came from, so a second load registers nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core import morphometry, state
from braing3n_core.data import preprocess
from braing3n_core.data.bids import Entry, Excluded, read_bids
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused
from braing3n_core.models.brain import Condition
from braing3n_core.morphometry import Morphometry
from braing3n_core.plan import Categorical, Continuous, TrainingPlan

__all__ = ["Cohort", "Excluded", "Patient", "Scan", "load_cohort"]

_MODALITY = "T1w"
_MEASURES = tuple(name.removesuffix("_ml") for name in Morphometry.__dataclass_fields__)
Progress = Callable[[int, int], None]                        # scans done, scans in all


@dataclass(frozen=True)
class Scan:
    """One visit. Every variable of the plan is in `conditions`, None where it is not known."""

    volume: Tensor                                           # (1, D, H, W) float32 on the plan's grid, in [0, 1.3]
    conditions: dict[str, Condition]


@dataclass(frozen=True)
class Patient:
    """The unit of privacy and of the split: one person with all scans."""

    participant: str
    scans: tuple[Scan, ...]
    held_out: bool


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
    """Read, preprocess and measure every usable T1w scan of a BIDS folder.

    Raises DataRefused if the folder, its table or a needed column is missing, or if not one scan can be used. Stopping it
    keeps every scan that was finished.
    """
    _refuse_unknown_measures(plan)
    entries, excluded = read_bids(bids, plan.variables)
    left_out, total, done = list(excluded), sum(len(entry.scans) for entry in entries), 0
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    usable: dict[str, tuple[Scan, ...]] = {}
    owner: dict[str, str] = {}                               # content of a scan -> the patient it belongs to
    for entry in entries:
        scans = []
        for path in entry.scans:
            try:
                scans.append(_scan(path, entry, plan, cache, owner))
            except DataRefused as error:
                left_out.append(Excluded(path.relative_to(bids).as_posix(), str(error)))
            done += 1
            if progress:
                progress(done, total)
        if scans:
            usable[entry.participant] = tuple(scans)
    if not usable:
        reason = left_out[0].reason if left_out else "there are none"
        raise DataRefused(f"no scan in {bids} can be used, {len(left_out)} left out, the first because: {reason}")
    held_out = held_out_of(list(usable), plan.seed, plan.data.held_out)
    patients = tuple(Patient(name, scans, name in held_out) for name, scans in usable.items())
    return Cohort(patients, tuple(sorted(left_out, key=lambda one: one.file)))


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


def _scan(path: Path, entry: Entry, plan: TrainingPlan, cache: Path, owner: dict[str, str]) -> Scan:
    content = _digest(path)
    if owner.setdefault(content, entry.participant) != entry.participant:
        # One person under two names would be protected half as well and could sit on both sides of the split.
        raise DataRefused(f"{path.name} is the same file as a scan of another patient; keep it with the one it belongs to")
    volume, measured = _cached(path, content, plan, cache)
    return Scan(volume, {variable.name: _condition(variable, entry, measured) for variable in plan.variables})


def _condition(variable: Continuous | Categorical, entry: Entry, measured: Mapping[str, float]) -> Condition:
    match variable.source:
        case "participants":
            return entry.conditions[variable.name]
        case "modality":
            return _MODALITY if _MODALITY in variable.levels else None
        case "measured":
            return _within(variable, measured[f"{variable.name}_ml"])


def _within(variable: Continuous | Categorical, value: float) -> float:
    if not (isinstance(variable, Continuous) and variable.low <= value <= variable.high):
        raise DataRefused(f"{variable.name} is {value:.1f} ml, outside the plan's range; look at the scan or widen the range")
    return value


def _refuse_unknown_measures(plan: TrainingPlan) -> None:
    for variable in plan.variables:
        if variable.source == "measured" and variable.name not in _MEASURES:
            raise PlanRefused(f"the plan measures {variable.name!r}; what can be measured is {', '.join(_MEASURES)}")


def _cached(path: Path, content: str, plan: TrainingPlan, cache: Path) -> tuple[Tensor, dict[str, float]]:
    """Volume and measurements, from the cache if they are there whole. A refusal is remembered as well."""
    kept = cache / f"{_key(path, content, plan)}.safetensors"
    found = _read(kept)
    if found is None:
        found = _computed(path, plan)
        state.save(kept, *found)
    tensors, notes = found
    if "refused" in notes:
        raise DataRefused(notes["refused"])
    return tensors["volume"], json.loads(notes["measured"])


def _computed(path: Path, plan: TrainingPlan) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        volume = preprocess.preprocess(path, plan)
        measured = morphometry.measure(volume, template(plan.model), plan.model.spacing_mm)
    except DataRefused as error:
        reason = str(error)
        return {}, {"refused": reason, "sum": _sum({}, reason)}
    text = json.dumps(asdict(measured))
    return {"volume": volume}, {"measured": text, "sum": _sum({"volume": volume}, text)}


def _read(kept: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """A cache entry, or None if it is absent, cut short or changed: then it is computed again."""
    if not kept.exists():
        return None
    try:
        tensors, notes = state.load(kept)
    except IntegrityError:
        return None
    return (tensors, notes) if notes.get("sum") == _sum(tensors, notes.get("refused", notes.get("measured", ""))) else None


def _sum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(path: Path, content: str, plan: TrainingPlan) -> str:
    """Everything the result follows from: the file, both programs, the grid, the registration."""
    parts = [
        content, path.suffix, preprocess.VERSION, morphometry.VERSION,
        plan.model.shape, plan.model.spacing_mm, plan.data.registration,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataRefused(f"{path.name} cannot be read ({error.strerror}); check its permissions and run again") from error
