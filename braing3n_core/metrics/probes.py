"""Linear probes: what a linear map can read from frozen features, always on people it was not fitted to.

n people, f features, k outputs. Ridge in its dual form, since features outnumber people; the strength is chosen inside the
training people by leave-one-out in closed form (Golub, Heath and Wahba 1979), so the tested people never have a say. Sums run
in torch, whose threads the program sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import FloatArray, finite

_STRENGTHS = [10 ** (step / 3) for step in range(-9, 10)]    # of the mean feature's variance


def deal(people: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) fold of each row; all rows of one person are in one fold, so nobody is on both sides."""
    names = sorted(set(people))
    if not 2 <= folds <= len(names):
        raise DataRefused(f"{folds} folds need 2 or more, and as many people, got {len(names)}; take fewer folds")
    order = np.random.default_rng(seed % 2**64).permutation(len(names))
    fold = {names[place]: turn % folds for turn, place in enumerate(order)}
    return np.array([fold[name] for name in people])


def ridge(features: ArrayLike, targets: ArrayLike, unseen: ArrayLike) -> FloatArray:
    """Targets (n, k) fitted by features (n, f), predicted for `unseen` (m, f): (m, k).

    Features are standardised by the training rows; targets keep their unit. One strength for all outputs.
    """
    x, y, z = finite(features, "ridge", 2), finite(targets, "ridge", 2), finite(unseen, "ridge", 2)
    if not (len(x) == len(y) >= 3 and x.shape[1] == z.shape[1] >= 1):
        raise DataRefused(f"ridge needs 3 rows and equal features, got {x.shape}, {y.shape} and {z.shape}; add patients")
    centre, spread = x.mean(0), x.std(0) + 1e-9
    known, other = (torch.from_numpy((rows - centre) / spread) for rows in (x, z))
    level = torch.from_numpy(y.mean(0))
    apart = torch.from_numpy(y) - level
    values, axes = torch.linalg.eigh(known @ known.T / known.shape[1])
    strength = min(_STRENGTHS, key=lambda each: _left_out(values, axes, apart, each))
    dual = axes @ ((axes.T @ apart) / (values + strength)[:, None])
    return np.asarray((other @ known.T / known.shape[1] @ dual + level).numpy())


def cross_validated(features: ArrayLike, targets: ArrayLike, folds: NDArray[np.int64]) -> FloatArray:
    """(n, k) predictions of targets (n, k), each row by a ridge that never saw its fold."""
    x, y = finite(features, "cross_validated", 2), finite(targets, "cross_validated", 2)
    predicted = np.full(y.shape, np.nan)
    for fold in np.unique(folds):
        tested = folds == fold
        predicted[tested] = ridge(x[~tested], y[~tested], x[tested])
    return predicted


def one_hot(labels: Sequence[str]) -> tuple[FloatArray, tuple[str, ...]]:
    """(n, k) indicators of the labels and their names in order; the largest output of a probe on them is its answer."""
    levels = tuple(sorted(set(labels)))
    return np.array([[float(label == level) for level in levels] for label in labels]), levels


def _left_out(values: Tensor, axes: Tensor, y: Tensor, strength: float) -> float:
    """Mean squared leave-one-out error of a ridge of this strength."""
    hat = (axes * (values / (values + strength))) @ axes.T
    kept = 1 - hat.diagonal() - 1 / len(y)                   # the mean was fitted as well
    return float(((y - hat @ y) / kept.clamp(min=1e-9)[:, None]).square().mean())
