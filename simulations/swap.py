"""The swap test: the same synthetic people twice, one condition changed. Does it act, and does everything else stay?

Tissues and ventricles are measured on the T1w, lesions on the FLAIR of the same people, where the model makes one.
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


@dataclass(frozen=True)
class Swap:
    """What one change did. `image` is the mean absolute change inside the brain, of a white matter of 0.85."""

    variable: str
    before: str
    after: str
    image: float
    effects: dict[str, float]                                # measure -> deviations between people of whom nothing is asked


def swaps(model: Brain, people: int, seed: int, steps: int) -> list[Swap]:
    """Every variable with two values to choose from, changed in `people` who share noise and all other conditions."""
    inside, known = model.decoder.brain > 0, {variable.name for variable in model.variables}
    person = {name: value for name, value in PERSON.items() if name in known}
    _, others = _seen(model, {"modality": T1W}, people, seed + 1, steps)
    found = []
    for variable in model.variables:
        pair = _pair(variable, model)
        if pair is None:
            continue
        rows = [{**person, variable.name: value} for value in pair]
        (first, before), (second, after) = (_seen(model, row, people, seed, steps) for row in rows)
        image = float((second - first).abs()[:, 0, inside].mean())
        effects = metrics.swap_effects(before, after, others)
        found.append(Swap(variable.name, _worded(pair[0]), _worded(pair[1]), image, effects))
    return found


def _seen(
    model: Brain, person: Mapping[str, Condition], people: int, seed: int, steps: int
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """T1w volumes of so many people who share all conditions, and what is measured on their images."""
    t1w = images(model, [Wanted(person, n) for n in range(people)], seed, steps=steps, guidance=1.0)
    found = {name: np.asarray(values) for name, values in measures(t1w, model.preset).items()}
    if FLAIR in model.others:
        flair = images(model, [Wanted(person, n, 0.0, FLAIR) for n in range(people)], seed, steps=steps, guidance=1.0)
        found["lesions_ml"] = np.array(measured(flair, FLAIR, model.preset)["lesions"])
    return t1w, found


def told(found: Sequence[Swap]) -> list[str]:
    """The table for a person."""
    names = list(found[0].effects) if found else []
    lines = [f"{'swapped':<40}{'image':>8}" + "".join(f"{name.removesuffix('_ml'):>12}" for name in names)]
    for row in found:
        change = f"{row.variable}: {row.before} to {row.after}"
        lines.append(f"{change:<40}{row.image:>8.4f}" + "".join(f"{row.effects[name]:>12.2f}" for name in names))
    return lines


def write(found: Sequence[Swap], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in found], indent=1) + "\n").encode())


def _worded(value: Condition) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pair(variable: Continuous | Categorical, model: Brain) -> tuple[Condition, Condition] | None:
    """Two values that differ; None for a variable that has one alone."""
    if isinstance(variable, Continuous):
        least, most, parts = variable.low, variable.high, _INNER
        if model.steering is not None and variable.source == "measured":
            place, parts = MEASURES.index(variable.name), _REACHED
            least, most = float(model.steering.least[place]), float(model.steering.most[place])
        low, high = (least + part * (most - least) for part in parts)
        return low, high
    return (variable.levels[0], variable.levels[1]) if len(variable.levels) > 1 else None
