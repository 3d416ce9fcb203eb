"""How far a number would move with other patients, and what two halves of the real set score at the same size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import FloatArray, finite, two_sets

Statistic = Callable[[FloatArray], float]
TwoSets = Callable[[FloatArray, FloatArray], float]          # real rows, other rows


def bootstrap_interval(
    values: ArrayLike,
    seed: int,
    *,
    statistic: Statistic = lambda row: float(row.mean()),
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """(low, high) of `statistic` in the unit of `values`: percentile bootstrap, rows drawn with replacement from `seed`.

    `values` is one number (n,) or one row (n, k) per patient, so that pairs stay together. It says how far the number would
    move with other patients of the same kind, and nothing about other hospitals. Source: Efron and Tibshirani, 1993.
    """
    rows = np.asarray(values, dtype=np.float64)
    if not (rows.ndim in (1, 2) and len(rows) >= 2 and np.isfinite(rows).all()):
        raise DataRefused(f"an interval needs at least 2 finite values, got {rows.shape}; leave failed values out by name")
    if not (0 < level < 1 and resamples >= 100):
        raise DataRefused(f"an interval needs 0 < level < 1 and 100 resamples, got {level} and {resamples}")
    rng = np.random.default_rng(seed % 2**64)
    draws = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(resamples)]
    tail = (1 - level) / 2
    low, high = np.quantile(finite(draws, "interval", 1), [tail, 1 - tail])
    return float(low), float(high)


def repeats_interval(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of the interval of the mean over repeats, each with a seed of its own, in the unit of `values`.

    Student's t, because repeats are few: three runs give 4.3 standard errors. None for one run, which says nothing of others.
    """
    if len(values) < 2:
        return None
    deviation = float(np.std(finite(values, "repeats", 1), ddof=1))
    return float(t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))


@dataclass(frozen=True)
class Compared:
    """A distance at N real against N other rows, beside the same distance between real and real at that N."""

    value: float
    low: float                                               # 95 % interval of `value`
    high: float
    floor: float                                             # real against real; a perfect generator scores this, not 0 or 1
    rows: int                                                # N


def against_real(statistic: TwoSets, real: ArrayLike, made: ArrayLike, seed: int, draws: int = 200) -> Compared:
    """`statistic` of generated against real features with its floor, in the statistic's unit.

    Each draw takes N rows of each set without replacement, N half of the smaller set; value and floor are means over draws,
    the interval their 2.5 and 97.5 percentiles. Rows are never repeated, because a repeated row is its own nearest
    neighbour and biases every kernel; half samples without replacement vary as a bootstrap does, and more where the other
    set is larger, so the interval errs on the wide side. Source: half-sampling, Efron, SIAM 1982, chapter 8.
    """
    a, b = two_sets(real, made, "against_real", 4)
    if not draws >= 20:
        raise DataRefused(f"against_real needs at least 20 draws for an interval, got {draws}; 200 is usual")
    n, rng = min(len(a), len(b)) // 2, np.random.default_rng(seed % 2**64)
    values, floors = [], []
    for _ in range(draws):
        order = rng.permutation(len(a))
        values.append(statistic(a[order[:n]], b[rng.permutation(len(b))[:n]]))
        floors.append(statistic(a[order[:n]], a[order[n : 2 * n]]))
    low, high = np.quantile(finite(values, "against_real", 1), [0.025, 0.975])
    return Compared(float(np.mean(values)), float(low), float(high), float(np.mean(finite(floors, "floor", 1))), n)
