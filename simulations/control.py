"""The control table: what was asked of generated people against what is measured on them, for every variable with a measure.

Ventricles are measured as a hospital measures them. Age and lesions are read by a regressor, sex and diagnosis by a
classifier, each a ridge on voxels fitted to public phantoms whose truth is known, and each with its own score on unseen
phantoms beside it: a generator is hardly read better than people are. The shipped prior has no variable for the brain's volume;
a plan may declare one as measured (BRAIN), and then it is in the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from braing3n_core import figures, metrics
from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.generate import Guidance, generate
from braing3n_core.models.brain import MEASURES, Brain, Condition
from braing3n_core.morphometry import measures
from braing3n_core.plan import Categorical, Continuous
from simulations.probe import voxels
from simulations.tstr import People, coded, of_phantoms, tells_apart

BRAIN = Continuous(kind="continuous", name="brain", unit="ml", low=800.0, high=2000.0, source="measured")
Say = Callable[[str], None]
Score = Literal["r", "accuracy"]
_FITTED = 320                                                # phantoms that a reader learns from
_RANGE = (0.05, 0.95)                                        # quantiles of the public: what is asked for
_SEED = 20_260_002


@dataclass(frozen=True)
class Control:
    """One variable. `together`: all variables asked for as people have them; `alone`: this one over its range, nothing else."""

    variable: str
    unit: str
    score: Score                                             # of asked against read: Pearson's r, or share of right answers
    reader: str
    people: float | None                                     # the reader's own, on unseen phantoms; None: it is the truth
    together: float
    alone: float
    slope: float | None                                      # of read on asked, alone; 1: what is asked is what comes
    asked: tuple[float, ...]                                 # alone
    read: tuple[float, ...]


Read = Callable[[Tensor], np.ndarray]                        # (n, 1, D, H, W) -> (n, k)


def controls(model: Brain, people: int, steps: int, guidance: Guidance, say: Say) -> list[Control]:
    """Every variable that public phantoms differ in. `guidance` as in `generate`."""
    fitted, unseen = of_phantoms(model, _FITTED, people)
    say(f"{people} people with all conditions asked for")
    made = generate(model, unseen.conditions, _SEED, steps=steps, guidance=guidance)
    found = []
    for variable in model.variables:
        if not tells_apart(variable.name, fitted):
            continue
        say(f"{variable.name} alone, {people} people")
        asked = _spread(model, variable, fitted, people)
        rows: list[dict[str, Condition]] = [{"modality": "T1w", variable.name: value} for value in asked]
        swept = generate(model, rows, _SEED + 1, steps=steps, guidance=guidance)
        found.append(_control(model, variable, fitted, (unseen, made), People(swept, tuple(rows))))
    return found


def _control(
    model: Brain, variable: Continuous | Categorical, fitted: People, together: tuple[People, Tensor], alone: People
) -> Control:
    measured = variable.source == "measured"
    read = _measured(model, variable.name) if measured else _fitted(model, variable, fitted)
    people, made = together
    seen, wanted = read(alone.volumes), coded(variable, alone)
    worded = isinstance(variable, Categorical)
    return Control(
        variable.name,
        "" if isinstance(variable, Categorical) else variable.unit,
        "accuracy" if worded else "r",
        "morphometry" if measured else "ridge on voxels",
        None if measured else _score(coded(variable, people), read(people.volumes)),
        _score(coded(variable, people), read(made)),
        _score(wanted, seen),
        None if worded else float(np.polyfit(wanted[:, 0], seen[:, 0], 1)[0]),
        () if worded else tuple(wanted[:, 0].tolist()),
        () if worded else tuple(seen[:, 0].tolist()),
    )


def _measured(model: Brain, name: str) -> Read:
    return lambda volumes: measures(volumes, model.preset)[f"{name}_ml"][:, None]


def _fitted(model: Brain, variable: Continuous | Categorical, fitted: People) -> Read:
    known, y = voxels(model, fitted.volumes), coded(variable, fitted)
    return lambda volumes: metrics.ridge(known, y, voxels(model, volumes))


def _score(asked: np.ndarray, read: np.ndarray) -> float:
    if asked.shape[1] > 1:
        return float((asked.argmax(1) == read.argmax(1)).mean())
    return metrics.correlation(asked[:, 0], read[:, 0])


def _spread(model: Brain, variable: Continuous | Categorical, fitted: People, count: int) -> list[Condition]:
    """Values evenly over the public's range, as far as people can be brought there, or the public's levels in turn."""
    known = [value for row in fitted.conditions if (value := row.get(variable.name)) is not None]
    if isinstance(variable, Categorical):
        levels = sorted({str(value) for value in known})
        return [levels[place % len(levels)] for place in range(count)]
    low, high = (float(np.quantile(np.array(known, np.float64), part)) for part in _RANGE)
    if model.steering is not None and variable.source == "measured":
        place = MEASURES.index(variable.name)
        low, high = max(low, float(model.steering.least[place])), min(high, float(model.steering.most[place]))
    return [float(value) for value in np.linspace(low, high, count)]


def weights(words: Sequence[str]) -> dict[str, float]:
    """`variable=WEIGHT` words as guidance. Raises UsageError."""
    try:
        return {name: float(value) for name, _, value in (word.partition("=") for word in words)}
    except ValueError as error:
        raise UsageError("a weight is written variable=NUMBER, for example ventricles=1.5") from error


def told(found: Sequence[Control]) -> list[str]:
    """The table for a person."""
    lines = [f"{'variable':<12}{'read by':<18}{'score':<10}{'people':>8}{'together':>10}{'alone':>8}{'slope':>8}"]
    for row in found:
        people, slope = ("-" if value is None else f"{value:.3f}" for value in (row.people, row.slope))
        lines.append(
            f"{row.variable:<12}{row.reader:<18}{row.score:<10}{people:>8}{row.together:>10.3f}{row.alone:>8.3f}{slope:>8}"
        )
    return [*lines, "people: the reader on unseen phantoms; together: all conditions asked for; alone: it, over its range"]


def write(found: Sequence[Control], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in found], indent=1) + "\n").encode())


def picture(found: Sequence[Control]) -> bytes:
    """PNG: asked against read, alone, a panel for each continuous variable."""
    shown = [row for row in found if row.asked]
    figure = figures.blank(3.8 * max(1, len(shown)), 3.8, 150)
    for place, row in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        ends = (min(row.asked), max(row.asked))
        axes.plot(ends, ends, color="#1c2330", lw=1, ls=(0, (5, 4)))
        axes.scatter(row.asked, row.read, s=18, color="#0072b2", alpha=0.8, edgecolors="none")
        axes.set(title=f"{row.variable}: r {row.alone:.3f}", xlabel=f"asked, {row.unit}", ylabel=f"{row.reader}, {row.unit}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#c9ced6", lw=0.6)
    return figures.png(figure)
