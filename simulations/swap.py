"""The swap test: the same synthetic people twice, one condition changed. Does it act, and does everything else stay?

Tissues and ventricles are measured on the T1w, in deviations between people of whom nothing is asked; lesions in ml on the
FLAIR of the same people, where the model makes one: people of whom nothing is asked have next to none and differ in noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import MEASURES, Brain, Condition
from braing3n_core.morphometry import measures
from braing3n_core.people import Wanted, images
from braing3n_core.plan import T1W, Categorical, Continuous
from simulations.modalities import FLAIR, measured

PERSON: Mapping[str, Condition] = {
    "age": 60.0, "sex": "F", "diagnosis": "healthy", "modality": "T1w", "ventricles": 30.0, "lesions": 5.0, "brain": 1900.0
}  # fmt: skip
_INNER = (0.1, 0.4)                                          # of a continuous range: values that people have
_REACHED = (0.2, 0.8)                                        # of the range in which people are brought to a volume
_LEAST_OTHERS = 32                                           # people of whom nothing is asked


@dataclass(frozen=True)
class Swap:
    """What one change did. `image` is the mean absolute change inside the brain, of a white matter of 0.85."""

    variable: str
    before: str
    after: str
    image: float
    effects: dict[str, float]                                # measure -> deviations between people of whom nothing is asked
    lesions_ml: float | None                                 # on the FLAIR; None: the model makes none


def swaps(model: Brain, people: int, seed: int, steps: int) -> list[Swap]:
    """Every variable with two values to choose from, changed in `people` who share noise and all other conditions."""
    inside, known = model.decoder.brain > 0, {variable.name for variable in model.variables}
    person = {name: value for name, value in PERSON.items() if name in known}
    anybody = [Wanted({"modality": T1W}, n) for n in range(max(people, _LEAST_OTHERS))]
    others = measures(images(model, anybody, seed + 1, steps=steps, guidance=1.0), model.preset)
    found = []
    for variable in model.variables:
        pair = _pair(variable, model)
        if pair is None:
            continue
        rows = [{**person, variable.name: value} for value in pair]
        first, second = (_made(model, row, people, seed, steps, T1W) for row in rows)
        image = float((second - first).abs()[:, 0, inside].mean())
        effects = metrics.swap_effects(measures(first, model.preset), measures(second, model.preset), others)
        lesions = None
        if FLAIR in model.others:
            few, many = (_made(model, row, people, seed, steps, FLAIR) for row in rows)
            lesions = _lesions(many, model) - _lesions(few, model)
        found.append(Swap(variable.name, _worded(pair[0]), _worded(pair[1]), image, effects, lesions))
    return found


def _made(model: Brain, person: Mapping[str, Condition], people: int, seed: int, steps: int, modality: str) -> Tensor:
    """(n, 1, D, H, W) of so many people who share all conditions."""
    return images(model, [Wanted(person, n, 0.0, modality) for n in range(people)], seed, steps=steps, guidance=1.0)


def _lesions(flair: Tensor, model: Brain) -> float:
    """Mean ml."""
    return float(np.mean(measured(flair, FLAIR, model.preset)["lesions"]))


def told(found: Sequence[Swap]) -> list[str]:
    """The table for a person."""
    names = list(found[0].effects) if found else []
    heads = "".join(f"{name.removesuffix('_ml'):>12}" for name in names)
    lines = [f"{'swapped':<40}{'image':>8}{heads}{'lesions, ml':>13}"]
    for row in found:
        change = f"{row.variable}: {row.before} to {row.after}"
        lesions = "" if row.lesions_ml is None else f"{row.lesions_ml:.1f}"
        effects = "".join(f"{row.effects[name]:>12.2f}" for name in names)
        lines.append(f"{change:<40}{row.image:>8.4f}{effects}{lesions:>13}")
    return [*lines, "volumes in deviations between people of whom nothing is asked"]


def write(found: Sequence[Swap], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in found], indent=1) + "\n").encode())


def _worded(value: Condition) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pair(variable: Continuous | Categorical, model: Brain) -> tuple[Condition, Condition] | None:
    """Two values that differ; None for a variable that has one alone."""
    if isinstance(variable, Categorical):
        return (variable.levels[0], variable.levels[1]) if len(variable.levels) > 1 else None
    least, most, parts = _reached(variable, model) or (variable.low, variable.high, _INNER)
    low, high = (least + part * (most - least) for part in parts)
    return (low, high) if low < high else None


def _reached(variable: Continuous, model: Brain) -> tuple[float, float, tuple[float, float]] | None:
    """From where to where people are brought to a measured volume, within what may be asked for; None if they are not."""
    if model.steering is None or variable.source != "measured" or variable.name not in MEASURES:
        return None
    place = MEASURES.index(variable.name)
    least, most = float(model.steering.least[place]), float(model.steering.most[place])
    return max(least, variable.low), min(most, variable.high), _REACHED
