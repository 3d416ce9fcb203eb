"""Whether the organs of generated people are as large as those of real ones, measure by measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import wasserstein_distance

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import finite


@dataclass(frozen=True)
class Plausibility:
    """One measure of real against generated people. Effect sizes below 0.2 are usually called small (Cohen 1988)."""

    name: str
    wasserstein: float                                       # in the measure's unit, 0: equal distributions
    effect: float                                            # Cohen's d; positive: generated ones are larger


def wasserstein(real: ArrayLike, made: ArrayLike) -> float:
    """1-Wasserstein distance of two lists, in their unit: the area between their distribution functions.

    Source: Villani 2009, as computed by SciPy. Sees spread and shape, which Cohen's d does not.
    """
    a, b = finite(real, "wasserstein", 1), finite(made, "wasserstein", 1)
    if not min(len(a), len(b)) >= 1:
        raise DataRefused("wasserstein of an empty list has no meaning; measure at least one volume of each set")
    return float(wasserstein_distance(a, b))


def cohens_d(real: ArrayLike, made: ArrayLike) -> float:
    """Difference of means in pooled standard deviations, no unit: (mean made - mean real) / s.

    s^2 = ((n-1) s_real^2 + (m-1) s_made^2) / (n + m - 2). Source: Cohen 1988.
    """
    a, b = finite(real, "cohens_d", 1), finite(made, "cohens_d", 1)
    if not min(len(a), len(b)) >= 2:
        raise DataRefused(f"cohens_d needs 2 values of each set, got {len(a)} and {len(b)}; measure more volumes")
    squares = np.square(a - a.mean()).sum() + np.square(b - b.mean()).sum()
    spread = math.sqrt(float(squares) / (len(a) + len(b) - 2))
    if not spread > 0:
        raise DataRefused("cohens_d of two constant lists has no meaning; measure something that varies")
    return float(b.mean() - a.mean()) / spread


def plausibility(real: Mapping[str, ArrayLike], made: Mapping[str, ArrayLike]) -> list[Plausibility]:
    """Every measure that both sets have, in the order of `real`."""
    names = [name for name in real if name in made]
    if not names:
        raise DataRefused("the two sets share no measure; measure the same regions of both")
    return [Plausibility(name, wasserstein(real[name], made[name]), cohens_d(real[name], made[name])) for name in names]
