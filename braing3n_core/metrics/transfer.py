"""Train on synthetic, test on real: what generated people teach a probe, beside what as many real ones teach it.

Source of the idea: Esteban, Hyland and Rätsch, arXiv 1706.02633. Which probe reads which features is the caller's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import FloatArray, finite
from braing3n_core.metrics.intervals import bootstrap_interval

_NOTHING_TAUGHT = -1e9                                       # a resample in which real people teach nothing: lowest
_SURE = 0.999                                                # so at most one resample in a thousand is of that kind


@dataclass(frozen=True)
class Taught:
    """Share of what real training people teach a probe that as many generated ones teach it."""

    share: float                                             # 1: generated ones teach as much; 0: nothing; may pass both
    low: float                                               # 95 % interval of `share` over tested people
    high: float


def taught(nothing: ArrayLike, real: ArrayLike, made: ArrayLike, seed: int) -> Taught:
    """How much of what real people teach a probe generated ones teach it, from errors on the same n unseen people.

    Errors are (n,), in any unit: of a guess that looks at nobody, of a probe fitted to real people, of the same probe fitted to
    generated ones. Of labels, an error is 1 where the answer is wrong and 0 where it is right.
    share = (mean nothing - mean made) / (mean nothing - mean real): the part of the gain over knowing nothing. Resamples draw
    people, so the three errors of one person stay together. Raises DataRefused where real people teach nothing that is sure:
    then there is no gain to have a part of.
    """
    rows = np.stack([finite(each, "taught", 1) for each in _alike(nothing, real, made)], 1)
    low, _ = bootstrap_interval(rows[:, 0] - rows[:, 1], seed, level=_SURE)
    if not low > 0:
        raise DataRefused("real people teach this probe nothing sure, so it has no share; take more people or leave it out")
    return Taught(_share(rows), *bootstrap_interval(rows, seed, statistic=_share))


def _share(rows: FloatArray) -> float:
    nothing, real, made = rows.mean(0)
    return float((nothing - made) / (nothing - real)) if nothing > real else _NOTHING_TAUGHT


def _alike(*errors: ArrayLike) -> tuple[ArrayLike, ...]:
    if len({np.shape(each) for each in errors}) != 1:
        raise DataRefused(f"taught needs three errors of each person, got {[np.shape(one) for one in errors]}; test all alike")
    return errors
