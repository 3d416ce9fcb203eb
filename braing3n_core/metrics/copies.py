"""Whether generated people are copies of training patients, by distance in a feature space that the caller names.

A detector of exact and near copies only: it bounds nothing, and a pass is no privacy guarantee.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import FloatArray, two_sets


def nearest_ratio(made: ArrayLike, training: ArrayLike, held_out: ArrayLike) -> float:
    """Median distance of generated rows to their nearest training row, over the same for held-out rows. No unit.

    1: as far as strangers are; towards 0: copies; above 1: farther than strangers, which says the generator is off.
    """
    near, far = _nearest(made, training), _nearest(held_out, training)
    middle = float(np.median(far))
    if not middle > 0:
        raise DataRefused("held-out rows lie on training rows, so nothing can be compared; check the split by patient")
    return float(np.median(near)) / middle


def copied_share(made: ArrayLike, training: ArrayLike, held_out: ArrayLike, level: float = 0.05) -> float:
    """Share of generated rows nearer to training than all but `level` of the held-out rows are, 0 to 1, no unit.

    Without copying about `level` of them are. Source: the calibrated nearest-neighbour test of Meehan, Chaudhuri and
    Dasgupta, AISTATS 2020, with a quantile in place of their rank sum, because a few copies among many must show.
    """
    if not 0 < level < 1:
        raise DataRefused(f"copied_share needs a level between 0 and 1, got {level}; 0.05 is usual")
    near, far = _nearest(made, training), _nearest(held_out, training)
    return float((near < np.quantile(far, level)).mean())


def _nearest(rows: ArrayLike, training: ArrayLike) -> FloatArray:
    """(n,) distance of each row to the training row nearest to it."""
    a, b = two_sets(rows, training, "nearest distances", 1)
    return np.asarray(cdist(a, b).min(1))
