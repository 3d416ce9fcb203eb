"""The swap test: the same synthetic people twice, one condition changed. Does it act, and does everything else stay?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core import metrics
from braing3n_core.files import write_atomically
from braing3n_core.generate import generate, noise_of
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.morphometry import measures
from braing3n_core.plan import Categorical, Continuous

PERSON: Mapping[str, Condition] = {
    "age": 60.0, "sex": "F", "diagnosis": "healthy", "modality": "T1w", "ventricles": 30.0, "lesions": 5.0
}  # fmt: skip
_INNER = (0.1, 0.4)                                          # of a continuous range: values that people have


@dataclass(frozen=True)
class Swap:
    """What one change did. `image` is the mean absolute change inside the brain, of a white matter of 0.85."""

    variable: str
    before: str
    after: str
    image: float
    effects: dict[str, float]                                # measure -> deviations between people who share conditions


def swaps(model: Brain, people: int, seed: int, steps: int) -> list[Swap]:
    """Every variable with two values to choose from, changed in `people` who share noise and all other conditions."""
    noise, inside = noise_of(model, seed, people), model.decoder.brain > 0
    known = {variable.name for variable in model.variables}
    person = {name: value for name, value in PERSON.items() if name in known}
    found = []
    for variable in model.variables:
        pair = _pair(variable)
        if pair is None:
            continue
        volumes = [
            generate(model, [{**person, variable.name: value}] * people, seed, steps=steps, guidance=1.0, noise=noise)
            for value in pair
        ]
        before, after = (measures(each, model.preset) for each in volumes)
        image = float((volumes[1] - volumes[0]).abs()[:, 0, inside].mean())
        found.append(Swap(variable.name, str(pair[0]), str(pair[1]), image, metrics.swap_effects(before, after)))
    return found


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


def _pair(variable: Continuous | Categorical) -> tuple[Condition, Condition] | None:
    """Two values that differ; None for a variable that has one alone."""
    if isinstance(variable, Continuous):
        low, high = (variable.low + part * (variable.high - variable.low) for part in _INNER)
        return low, high
    return (variable.levels[0], variable.levels[1]) if len(variable.levels) > 1 else None
