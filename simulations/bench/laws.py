"""`braing3n-sim bench laws`: does the cost of a private step follow a law, from which other sizes can be told?

One law for time, with three constants: arithmetic of all rows, noise and clipping of all weights, and what every step costs.
One for memory, with three: weights, what the backward pass keeps of the rows of one pass, and the gradients of its patients.
Arithmetic and sizes are what `bench estimate` counts. Patients, views, tokens and weights are varied one at a time around the
tiny generator; constants are fitted to all points at once, so a law that is wrong along any of them shows there. The server's
time is a constant for each reply.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch

from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.plan import DEFAULT_VARIABLES, TrainingPlan
from privacy.fast_engine import ROWS_AT_ONCE
from simulations.bench import serving
from simulations.bench.dp import peak_bytes, private_step, seconds
from simulations.bench.estimate import Estimate, estimate
from simulations.bench.subjects import subject

Say = Callable[[str], None]
ALLOWED: Final = 0.15                                        # of the measured value
_TINY: Final = PRESETS["tiny"]
_PATIENTS: Final = 12
_SITES: Final = (3, 10, 30)
_MEGABYTES: Final = 4.0


@dataclass(frozen=True)
class Point:
    """One size of a private step of the generator."""

    varied: str
    patients: int
    views: int
    preset: Preset

    @property
    def size(self) -> Estimate:
        """What a row costs, every cube a token."""
        return estimate("", self.preset, DEFAULT_VARIABLES, 1, tokens=self.preset.tokens)

    @property
    def at_once(self) -> int:
        """Patients of the largest pass: memory is what one pass takes, however many follow."""
        return min(self.patients, max(1, ROWS_AT_ONCE // self.views))


@dataclass(frozen=True)
class Row:
    """One point of one law: measured, as the law has it, and how far apart."""

    law: str
    varied: str
    patients: int
    views: int
    tokens: int
    weights: int
    measured: float
    told: float

    @property
    def apart(self) -> float:
        """Part of the measured value."""
        return abs(self.told - self.measured) / self.measured


def points() -> list[Point]:
    """The middle, and around it ever more patients, views, tokens and weights."""
    patients = [Point("patients", count, 1, _TINY) for count in (3, 6, _PATIENTS, 24, 48)]
    views = [Point("views", 6, count, _TINY) for count in (2, 4, 8)]
    tokens = [Point("tokens", _PATIENTS, 1, dataclasses.replace(_TINY, patch=(side,) * 3)) for side in (16, 12, 6)]
    widths = [Point("weights", _PATIENTS, 1, _wide(width)) for width in (96, 224, 320)]
    return [*patients, *views, *tokens, *widths]


def _wide(width: int) -> Preset:
    return dataclasses.replace(_TINY, generator_width=width, generator_heads=width // 32)


def bench(plan: TrainingPlan, chosen: Sequence[Point], rounds: int, say: Say) -> list[Row]:
    """Every point of every law, on one thread. The plan gives the server's side everything but its sites."""
    torch.set_num_threads(1)
    times, peaks = [], []
    for point in chosen:
        say(f"{point.varied}: {point.patients} patients, {point.views} views, {point.preset.tokens} tokens, "
            f"{point.size.parameters['generator']} weights")  # fmt: skip
        step = private_step(subject("generator", point.patients, point.views, point.preset), "fast")
        step()
        times.append(statistics.median(seconds(step) for _ in range(rounds)))
        peaks.append(peak_bytes(step) / 1e6)
    weights = [float(point.size.parameters["generator"]) for point in chosen]
    rows_in = [float(point.patients * point.views) for point in chosen]
    flops = [n * point.size.step_flops["generator"] for n, point in zip(rows_in, chosen, strict=True)]
    kept = [point.at_once * point.views * point.size.activation_bytes["generator"] for point in chosen]
    gradients = [point.at_once * weight for point, weight in zip(chosen, weights, strict=True)]
    found = [
        *_law("seconds", chosen, times, fitted(times, flops, weights, [1.0] * len(chosen))),
        *_law("megabytes", chosen, peaks, fitted(peaks, kept, gradients, weights)),
    ]
    say(f"the server, {', '.join(map(str, _SITES))} sites")
    return [*found, *_server(plan)]


def fitted(measured: Sequence[float], *columns: Sequence[float]) -> list[float]:
    """What the best law says of each point: a sum of columns, with constants that make the relative error small."""
    known = np.asarray(measured, np.float64)
    design = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    constants, *_ = np.linalg.lstsq(design / known[:, None], np.ones(len(known)), rcond=None)
    told: list[float] = (design @ constants).tolist()
    return told


def _law(name: str, chosen: Sequence[Point], measured: Sequence[float], told: Sequence[float]) -> list[Row]:
    return [
        Row(name, point.varied, point.patients, point.views, point.preset.tokens, point.size.parameters["generator"], a, b)
        for point, a, b in zip(chosen, measured, told, strict=True)
    ]


def _server(plan: TrainingPlan) -> list[Row]:
    """Processor seconds of a round, in proportion to the sites, and the model copies it holds, the same for any number."""
    rows = serving.bench(plan, _SITES, _MEGABYTES, 5, None, lambda _: None)
    weights, counts = round(_MEGABYTES * 1e6 / 4), [float(row.sites) for row in rows]
    taken, held = [row.sites * row.seconds_per_reply for row in rows], [row.copies for row in rows]
    laws = {"server seconds": (taken, counts), "server copies": (held, [1.0] * len(rows))}
    return [
        Row(name, "sites", row.sites, 1, 0, weights, a, b)
        for name, (measured, column) in laws.items()
        for row, a, b in zip(rows, measured, fitted(measured, column), strict=True)
    ]


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people, and how far each law is from what was measured at worst."""
    sizes = f"{'patients':>9}{'views':>6}{'tokens':>7}{'weights':>9}"
    yield f"{'law':<16}{'varied':<10}{sizes}{'measured':>10}{'law':>9}{'apart':>7}"
    for row in rows:
        sizes = f"{row.patients:>9}{row.views:>6}{row.tokens:>7}{row.weights:>9}"
        yield f"{row.law:<16}{row.varied:<10}{sizes}{row.measured:>10.3g}{row.told:>9.3g}{row.apart:>7.0%}"
    for law in dict.fromkeys(row.law for row in rows):
        worst = max(row.apart for row in rows if row.law == law)
        yield f"{law}: at most {worst:.0%} apart, {'within' if worst <= ALLOWED else 'OVER'} {ALLOWED:.0%}"
    yield "patients of the server's rows are sites"


def as_json(rows: Sequence[Row]) -> str:
    """The table for programs."""
    return json.dumps([asdict(row) | {"apart": row.apart} for row in rows], indent=1)
