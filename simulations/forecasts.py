"""How good a forecast is: phantoms whose later visit is known, beside knowing nothing and beside what people change on average.

Every visit of a phantom has a receive field and noise of its own, as every scan of a person has; nobody can forecast those.
So errors are against the later anatomy under the first scan's field and noise, and beside that against the scan that was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n_core import figures, metrics
from braing3n_core.data.patient import Person, Wishes, people
from braing3n_core.files import write_atomically
from braing3n_core.forecast import forecast
from braing3n_core.models.brain import Brain
from braing3n_core.morphometry import measures
from braing3n_core.plan import Hospital
from server.trajectory import visits_of

Say = Callable[[str], None]
_KNOWN, _UNSEEN = 660_001, 660_002                           # seeds of phantoms; trajectories are trained on others
NO_CHANGE, AVERAGE, FORECAST = "no change", "average change", "forecast"


@dataclass(frozen=True)
class Row:
    """One way to foresee the second of two visits. Errors are means over people."""

    years: float
    way: str
    anatomy: float                                           # voxel error inside the brain, white matter being 0.85
    scan: float                                              # the same against the scan that was made
    ventricles: float                                        # error in ml
    better: float                                            # than no change: 1 - ratio of anatomy errors
    low: float                                               # 95 % interval of it, over people
    high: float


@dataclass(frozen=True)
class Seen:
    """People at two visits. `still` is the second under the first one's field and noise, `scanned` as it was."""

    years: float
    first: Tensor                                            # (n, 1, D, H, W); so the next
    still: Tensor
    scanned: Tensor
    codes: Tensor                                            # (n, M), of the first visit


@dataclass(frozen=True)
class Told:
    """The table's rows for one gap, and the people and forecasts behind them."""

    rows: tuple[Row, ...]
    seen: Seen
    forecasts: Tensor


def told_for(model: Brain, years: float, people_: int, known: int, say: Say) -> Told:
    """Forecast `people_` unseen phantoms; the average change is that of `known` others."""
    say(f"{known} phantoms with visits {years:g} years apart, for the average change")
    average = _average(model, years, known)
    say(f"{people_} others, forecast")
    seen = observed(model, years, people_)
    made = forecast(model, seen.first, seen.codes, torch.full((people_,), years))
    ways = {NO_CHANGE: seen.first, AVERAGE: (seen.first + average).clamp(min=0), FORECAST: made}
    return Told(tuple(_rows(model, seen, ways)), seen, made)


def observed(model: Brain, years: float, count: int, seed: int = _UNSEEN) -> Seen:
    """`count` phantoms of the public population at two visits."""
    scanned, still = (_people(model, years, count, seed, rescanned) for rescanned in (True, False))
    codes = model.codes([visits_of(person, model.preset)[0] for person in scanned])
    return Seen(years, _visit(scanned, 0), _visit(still, 1), _visit(scanned, 1), codes)


def _rows(model: Brain, seen: Seen, ways: Mapping[str, Tensor]) -> list[Row]:
    inside = model.decoder.brain > 0
    true = measures(seen.still, model.preset)["ventricles_ml"]
    nothing, rows = _error(ways[NO_CHANGE], seen.still, inside), []
    for way, volumes in ways.items():
        error = _error(volumes, seen.still, inside)
        low, high = metrics.bootstrap_interval(np.stack([error, nothing], 1), seed=0, statistic=_better)
        rows.append(
            Row(
                seen.years, way, float(error.mean()), float(_error(volumes, seen.scanned, inside).mean()),
                float(np.abs(measures(volumes, model.preset)["ventricles_ml"] - true).mean()),
                _better(np.stack([error, nothing], 1)), low, high,
            )
        )  # fmt: skip
    return rows


def _better(errors: np.ndarray) -> float:
    """(n, 2) errors of a way and of no change -> the part of the second that the first avoids."""
    return 1 - float(errors[:, 0].mean() / errors[:, 1].mean())


def _error(one: Tensor, other: Tensor, inside: Tensor) -> np.ndarray:
    """(n,) mean absolute difference inside the brain."""
    return (one - other).abs()[:, 0, inside].mean(1).double().numpy()


def _average(model: Brain, years: float, count: int) -> Tensor:
    """(1, D, H, W): what these years change in people on average."""
    known = _people(model, years, count, _KNOWN, rescanned=False)
    return (_visit(known, 1) - _visit(known, 0)).mean(0)


def _people(model: Brain, years: float, count: int, seed: int, rescanned: bool) -> list[Person]:
    wishes = Wishes(visits=2, years=years, rescanned=rescanned)
    return list(people(model.preset, count, seed, Hospital(name="public"), wishes))


def _visit(seen: Sequence[Person], which: int) -> Tensor:
    return torch.stack([person.visits[which].images["T1w"][None] for person in seen])


def told(rows: Sequence[Row]) -> list[str]:
    """The table for a person."""
    lines = [f"{'years':>5}  {'':<16}{'anatomy':>9}{'scan':>9}{'ventricles, ml':>16}  better than no change, 95 % interval"]
    for row in rows:
        better = "" if row.way == NO_CHANGE else f"{row.better:.0%} ({row.low:.0%} to {row.high:.0%})"
        lines.append(f"{row.years:>5g}  {row.way:<16}{row.anatomy:>9.4f}{row.scan:>9.4f}{row.ventricles:>16.2f}  {better}")
    return lines


def write(rows: Sequence[Row], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode())


def picture(found: Told, person: int = 0) -> bytes:
    """PNG: one person's first scan, the later anatomy and the forecast, and below what changed in truth and in the forecast."""
    first, true, made = (volumes[person, 0] for volumes in (found.seen.first, found.seen.still, found.forecasts))
    scans = [("first scan", first), (f"{found.seen.years:g} years later", true), ("forecast", made)]
    return figures.planes(scans, [("true change", true - first), ("forecast change", made - first)])
