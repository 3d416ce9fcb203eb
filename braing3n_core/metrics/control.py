"""Whether what was asked for is what came out, and whether anything else came along."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import finite


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of two lists of numbers, -1 to 1, no unit: cov(x, y) / (sd x sd y)."""
    a, b = finite(x, "correlation", 1), finite(y, "correlation", 1)
    if not (a.shape == b.shape and a.size >= 3):
        raise DataRefused(f"correlation needs two lists of equal length, at least 3, got {a.size} and {b.size}")
    a, b = a - a.mean(), b - b.mean()
    spread = math.sqrt(float(a @ a) * float(b @ b))
    if not spread > 0:
        raise DataRefused("correlation with a list of equal values has no meaning; ask for values over a range")
    return float(np.clip(a @ b / spread, -1, 1))


def swap_effects(
    before: Mapping[str, ArrayLike], after: Mapping[str, ArrayLike], others: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """What swapping one condition did to each measure of the same people, in standard deviations between `others`. No unit.

    mean(after - before) / sd(others), row by row: the same noise made both. `others` are people of whom nothing was asked:
    those who share all conditions hardly differ in a measure that is one of them. The measure that was asked for should move
    and the rest stay; a condition that moves nothing was ignored.
    """
    found = {}
    for name in before:
        a, b, c = (finite(each[name], f"swap_effects of {name}", 1) for each in (before, after, others))
        if not (len(a) and a.shape == b.shape):
            raise DataRefused(f"swap_effects of {name} needs the same people before and after, got {len(a)} and {len(b)}")
        if not (len(c) >= 2 and c.std(ddof=1) > 0):
            raise DataRefused(f"swap_effects of {name} needs 2 or more others who differ; use more of them")
        found[name] = float((b - a).mean() / c.std(ddof=1))
    return found
