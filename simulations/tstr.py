"""Train on synthetic, test on real: a probe fitted to generated people, beside one fitted to as many real training patients.

Both are tested on the same held-out patients, which looks at them without privacy: for rehearsals only. Every generated person
is asked for with the conditions of one real training patient, so the two probes see the same labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.data.cohort import Patient, load_cohort
from braing3n_core.data.phantom import phantoms
from braing3n_core.embedding import embed
from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically
from braing3n_core.generate import Guidance, generate
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.plan import Categorical, Continuous, Hospital
from braing3n_core.settings import Settings
from server.prior import conditions_of
from simulations.probe import voxels, worth_it

Say = Callable[[str], None]
_SEED = 20_260_001                                           # of generated people; the same for every arm
_TRAINING, _TESTED = 5551, 5552                              # seeds of public phantoms


@dataclass(frozen=True)
class People:
    """One scan of each of n people, in one order."""

    volumes: Tensor                                          # (n, 1, D, H, W)
    conditions: tuple[Mapping[str, Condition], ...]

    def __len__(self) -> int:
        return len(self.volumes)


@dataclass(frozen=True)
class Row:
    """One target read from one kind of features by probes of one arm."""

    arm: str
    target: str
    features: str
    unit: str                                                # of a mean absolute error; "wrong" for a share of wrong answers
    trained: int                                             # real people, and as many generated ones
    tested: int
    nothing: float
    real: float
    made: float
    taught: metrics.Taught | None                            # None: real people teach nothing sure


def of_run(settings: Settings, most: int) -> tuple[People, People]:
    """Training and held-out patients of every site of a finished run, at most so many of each, read from the sites' caches."""
    sites = [site.name for site in settings.plan.sites]
    cohorts = [load_cohort(settings.bids(name), settings.plan, settings.folder(name) / "cache") for name in sites]
    training = [patient for cohort in cohorts for patient in cohort.training]
    held_out = [patient for cohort in cohorts for patient in cohort.held_out]
    return first_scans(training, most), first_scans(held_out, most)


def of_phantoms(model: Brain, training: int, tested: int) -> tuple[People, People]:
    """Phantoms of the public population that the prior never saw."""
    return _public(model, training, _TRAINING), _public(model, tested, _TESTED)


def rows(
    arms: Mapping[str, Brain], public: Brain, training: People, tested: People, steps: int, guidance: Guidance, say: Say
) -> list[Row]:
    """Every target that varies enough, from voxels and from all tokens of the public encoder, taught by every arm."""
    targets = [one for one in public.variables if all(tells_apart(one.name, people) for people in (training, tested))]
    real, unseen = _features(public, training.volumes), _features(public, tested.volumes)
    found: list[Row] = []
    for arm, model in arms.items():
        say(f"{arm.replace('_', '-')}: {len(training)} generated people, asked for as {len(training)} real ones are")
        made = _features(public, generate(model, training.conditions, _SEED, steps=steps, guidance=guidance))
        for target in targets:
            found += [_row(arm, target, kind, (real[kind], made[kind], unseen[kind]), training, tested) for kind in real]
    return found


def _row(
    arm: str, target: Continuous | Categorical, kind: str, features: tuple[np.ndarray, np.ndarray, np.ndarray],
    training: People, tested: People,
) -> Row:  # fmt: skip
    real, made, unseen = features
    known, asked = (np.array([row.get(target.name) is not None for row in each.conditions]) for each in (training, tested))
    y, answers = coded(target, training), coded(target, tested)
    guess = np.repeat(y.mean(0, keepdims=True), len(answers), axis=0)
    predicted = [guess, *(metrics.ridge(rows[known], y, unseen[asked]) for rows in (real, made))]
    errors = [errors_of(target, each, answers) for each in predicted]
    unit = "wrong" if isinstance(target, Categorical) else target.unit
    nothing, by_real, by_made = errors
    return Row(
        arm, target.name, kind, unit, trained=len(y), tested=len(answers), nothing=float(nothing.mean()),
        real=float(by_real.mean()), made=float(by_made.mean()), taught=_taught(nothing, by_real, by_made),
    )  # fmt: skip


def errors_of(target: Continuous | Categorical, predicted: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(n,) absolute error of each person, or one where the level is wrong and zero where it is right."""
    if isinstance(target, Categorical):
        return np.asarray(predicted.argmax(1) != answers.argmax(1), np.float64)
    return np.asarray(np.abs(predicted - answers)[:, 0])


def _taught(nothing: np.ndarray, real: np.ndarray, made: np.ndarray) -> metrics.Taught | None:
    try:
        return metrics.taught(nothing, real, made, seed=0)
    except DataRefused:
        return None


def tells_apart(name: str, people: People) -> bool:
    """Whether the label varies enough among `people` for a probe of it."""
    values = [value for row in people.conditions if (value := row.get(name)) is not None]
    return bool(values) and worth_it(values, [str(place) for place in range(len(values))])


def coded(target: Continuous | Categorical, people: People) -> np.ndarray:
    """(n, k) numbers of those who have the label, or indicators of its levels."""
    values = [value for row in people.conditions if (value := row.get(target.name)) is not None]
    if isinstance(target, Categorical):
        return np.array([[float(value == level) for level in target.levels] for value in values])
    return np.array([[float(value)] for value in values])


def _features(public: Brain, volumes: Tensor) -> dict[str, np.ndarray]:
    """Kind -> (n, f)."""
    return {"voxels": voxels(public, volumes), "tokens, all": embed(public, volumes, "none").double().numpy()}


def first_scans(patients: Sequence[Patient], most: int) -> People:
    """One scan of each, at most `most` of them, from every part of the row."""
    every = math.ceil(len(patients) / most)                  # a stride, so that every hospital is in it
    scans = [patient.scans[0] for patient in patients[::every]]
    return People(torch.stack([scan.volume for scan in scans]), tuple(scan.conditions for scan in scans))


def _public(model: Brain, count: int, seed: int) -> People:
    found = list(phantoms(model.preset, count, seed, Hospital(name="public")))
    rows = tuple(conditions_of(truth, volume, model.preset) for volume, truth in found)
    return People(torch.stack([volume for volume, _ in found]), rows)


def told(found: Sequence[Row]) -> list[str]:
    """The table for a person."""
    first = found[0]
    lines = [
        f"errors on {first.tested} unseen people of probes fitted to nobody, {first.trained} real, {first.trained} generated",
        f"{'arm':<12}{'target':<12}{'features':<13}{'nothing':>9}{'real':>8}{'made':>8}  share of the gain, 95 % interval",
    ]
    for row in found:
        share = "real people teach nothing sure" if row.taught is None else _interval(row.taught)
        errors = f"{row.nothing:>9.3g}{row.real:>8.3g}{row.made:>8.3g}"
        lines.append(f"{row.arm:<12}{row.target:<12}{row.features:<13}{errors}  {share}, {row.unit}")
    return lines


def _interval(found: metrics.Taught) -> str:
    return f"{found.share:.2f} ({found.low:.2f} to {found.high:.2f})"


def write(found: Sequence[Row], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in found], indent=1) + "\n").encode())
