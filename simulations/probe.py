"""The linear-probe benchmark: what can be read from the frozen encoder's tokens, beside voxels, PCA and knowing nothing.

Patients are split, never scans. Every features-target pair is scored on people that its probe was not fitted to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.data.cohort import load_cohort
from braing3n_core.embedding import Pool, embed
from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import folders
from simulations.mechanisms import with_mechanism

FOLDS = 5
REPEATS = 3                                                  # deals of the folds; errors are averaged before the interval
LEAST = 8                                                    # people a level needs to be worth a probe
_COMPONENTS = 32                                             # of the PCA baseline
Say = Callable[[str], None]


@dataclass(frozen=True)
class People:
    """Every usable scan of the benchmark, in one order."""

    names: tuple[str, ...]                                   # site/participant: what folds are dealt by
    volumes: Tensor                                          # (n, 1, D, H, W)
    labels: Mapping[str, tuple[Condition, ...]]              # target -> one value per scan, None where unknown

    def first_scans(self, site: Condition) -> Tensor:
        """(p, 1, D, H, W): one scan of each person of a site."""
        own = [place for place, value in enumerate(self.labels["site"]) if value == site]
        first = {self.names[place]: place for place in reversed(own)}
        return self.volumes[sorted(first.values())]


@dataclass(frozen=True)
class Score:
    """One target read from one kind of features. Intervals are over people, 95 %."""

    target: str
    features: str
    unit: str                                                # of a mean absolute error, or "accuracy"
    value: float
    low: float
    high: float
    people: int


def plan_for(recipe: TrainingPlan, words: Sequence[str]) -> TrainingPlan:
    """The recipe's grid, variables and registration for the sites named in `site=DIR` words."""
    sites = [{"name": word.partition("=")[0], "patients": 1} for word in words]
    if not sites:
        raise DataRefused("no scans to probe; give --data site=DIR, once per site")
    federation = recipe.federation.model_copy(update={"quorum": 1})
    return with_mechanism(recipe, "local").but(sites=sites, federation=federation, rehearsal=None)      # nothing is trained


def gather(plan: TrainingPlan, words: Sequence[str], cache: Path, say: Say) -> People:
    """Read every site's scans through the door that training uses; `site` joins the plan's variables as a label."""
    names, volumes, rows = [], [], []
    for site, folder in folders(plan, list(words)):
        cohort = load_cohort(folder, plan, cache)
        say(f"{site}: {len(cohort.patients)} patients, {len(cohort.excluded)} scans left out")
        for patient in cohort.patients:
            for scan in patient.scans:
                names.append(f"{site}/{patient.participant}")
                volumes.append(scan.volume)
                rows.append({**scan.conditions, "site": site})
    labels = {name: tuple(row[name] for row in rows) for name in rows[0]}
    return People(tuple(names), torch.stack(volumes), labels)


def benchmark(
    plan: TrainingPlan, model: Brain, people: People, say: Say, others: Mapping[str, np.ndarray] | None = None
) -> list[Score]:
    """Every target that varies enough, from every kind of features; `others` are (n, f) features of somebody else's."""
    kinds = {f"tokens, {pool}": embed(model, people.volumes, pool).double().numpy() for pool in get_args(Pool)}
    kinds |= others or {}
    kinds["voxels"] = voxels(model, people.volumes)
    scores: list[Score] = []
    for target, values in people.labels.items():
        known = np.array([value is not None for value in values])
        chosen = [value for value in values if value is not None]
        names = [name for name, keep in zip(people.names, known, strict=True) if keep]
        if not worth_it(chosen, names):
            say(f"{target}: too few people or nothing to tell apart")
            continue
        unit = next((getattr(v, "unit", "accuracy") for v in plan.variables if v.name == target), "accuracy")
        scores += _scores(target, unit, chosen, names, {kind: rows[known] for kind, rows in kinds.items()})
        say(f"{target}: read from {len(kinds) + 2} kinds of features")
    return scores


def voxels(model: Brain, volumes: Tensor) -> np.ndarray:
    """(n, 1, D, H, W) -> (n, v): what lies inside the brain, the features that tokens have to beat."""
    return volumes[:, 0][:, model.decoder.brain > 0].double().numpy()


def worth_it(values: Sequence[Condition], names: Sequence[str]) -> bool:
    """Whether enough people have a value, and their values differ enough, for a probe to have something to learn."""
    if len(set(names)) < 2 * FOLDS:
        return False
    if not isinstance(values[0], str):
        return len(set(values)) > 1
    counts = [values.count(level) for level in set(values)]
    return len(counts) > 1 and min(counts) >= LEAST


def _scores(
    target: str, unit: str, values: Sequence[Condition], names: Sequence[str], kinds: Mapping[str, np.ndarray]
) -> list[Score]:
    worded = isinstance(values[0], str)
    y = metrics.one_hot([str(v) for v in values])[0] if worded else np.array([[float(str(v))] for v in values])
    table = {
        "nothing": _each(_nothing, kinds["voxels"], y, names, worded),
        f"PCA, {_COMPONENTS} of voxels": _each(_components, kinds["voxels"], y, names, worded),
    }
    table |= {kind: _each(metrics.ridge, rows, y, names, worded) for kind, rows in kinds.items()}
    made = []
    for kind, each in table.items():
        low, high = metrics.bootstrap_interval(each, seed=0)
        made.append(Score(target, kind, "accuracy" if worded else unit, float(each.mean()), low, high, len(set(names))))
    return made


Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _each(predictor: Predictor, rows: np.ndarray, y: np.ndarray, names: Sequence[str], worded: bool) -> np.ndarray:
    """(people,) absolute error, or share of right answers, of each person over repeats and scans."""
    found = []
    for repeat in range(REPEATS):
        folds, predicted = metrics.deal(names, FOLDS, repeat), np.empty_like(y)
        for fold in range(FOLDS):
            tested = folds == fold
            predicted[tested] = predictor(rows[~tested], y[~tested], rows[tested])
        right = (predicted.argmax(1) == y.argmax(1)).astype(float)
        found.append(right if worded else np.abs(predicted - y)[:, 0])
    mean, people = np.mean(found, axis=0), np.array(names)
    return np.array([mean[people == name].mean() for name in sorted(set(names))])


def _nothing(rows: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """The training mean for everybody; of indicators, the commonest level."""
    return np.repeat(y.mean(0, keepdims=True), len(unseen), axis=0)


def _components(rows: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Ridge on the first principal components of the training people's voxels."""
    known, other = (torch.from_numpy(each - rows.mean(0)) for each in (rows, unseen))
    values, axes = torch.linalg.eigh(known @ known.T)        # of people: there are fewer of them than voxels
    count = min(_COMPONENTS, len(rows) - 1)
    first = known.T @ axes[:, -count:] / values[-count:].sqrt()
    return metrics.ridge((known @ first).numpy(), y, (other @ first).numpy())


def told(scores: Sequence[Score]) -> list[str]:
    """The table for a person."""
    lines = [f"{'target':<12}{'features':<20}{'score':>9}  {'95 % interval':<16}unit, people"]
    for row in scores:
        interval = f"{row.low:.3g} to {row.high:.3g}"
        lines.append(f"{row.target:<12}{row.features:<20}{row.value:>9.3g}  {interval:<16}{row.unit}, {row.people}")
    return lines


def write(scores: Sequence[Score], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(score) for score in scores], indent=1) + "\n").encode())

