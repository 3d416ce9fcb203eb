"""Whole numbers with noise that is a whole number: what can be added up modulo 2^32 without losing the guarantee.

A float sum with float noise, rounded afterwards, is not what any theorem is about. Here every patient's contribution is rounded
first, so that the sum moves by exactly that patient's whole numbers, and the noise is added as whole numbers too; nothing
floats, so nothing leaks through last bits either.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from scipy.special import pdtr

from privacy.errors import MechanismRefused
from privacy.mechanism import Bounded
from privacy.randomness import Randomness

_FLOAT32: Final = 1e-6                                       # by how much a clipped float32 contribution may miss its bound
_TAIL: Final = 10                                            # standard deviations of a table; 53 bits reach 8.3 of them
_LEAST: Final = 40                                           # values above the mean, for small means


def rounded_bound(l2_bound: float, scale: float, size: int) -> float:
    """L2 norm that `whole_numbers` of (size,) never exceeds: each coordinate moves by half a unit at most."""
    return scale * l2_bound * (1 + _FLOAT32) + math.sqrt(size) / 2


def whole_numbers(contribution: Bounded, scale: float) -> np.ndarray:
    """(n,) int64: one patient's clipped contribution times `scale`, rounded.

    Guarantee: its L2 norm is at most rounded_bound(contribution.l2_bound, scale, n), whatever the input; a contribution that
    is not within its own bound, or not finite, gives zeros.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise MechanismRefused(f"scale {scale} must be a finite positive number")
    flat = torch.cat([tensor.detach().flatten().double() for tensor in contribution.tensors.values()]).numpy()
    rounded = np.rint(flat * scale)
    if not float(np.linalg.norm(rounded)) <= rounded_bound(contribution.l2_bound, scale, len(flat)) * (1 - 1e-12):
        return np.zeros(len(flat), dtype=np.int64)
    return np.asarray(rounded.astype(np.int64))


def skellam(count: int, variance: float, randomness: Randomness) -> np.ndarray:
    """(count,) int64 draws of the symmetric Skellam distribution: the difference of two Poisson(variance / 2).

    Sums of independent draws are Skellam again, with the variances added: shares of noise need no correction. Drawn by
    inversion of a table of the distribution function from 53 random bits, so each draw is within about 1e-13 of the exact
    distribution; that distance is not in delta.
    """
    if not 0 < variance <= 1e12:
        raise MechanismRefused(f"noise variance {variance} must be positive and at most 1e12; choose a smaller scale")
    low, table = _poisson(variance / 2)
    first, second = (low + np.searchsorted(table, randomness.uniform(count).numpy()) for _ in range(2))
    return np.asarray(first - second, dtype=np.int64)


@lru_cache(maxsize=4)
def _poisson(mean: float) -> tuple[int, np.ndarray]:
    """Smallest value, and P[X <= value] for it and those that follow."""
    low = max(0, math.floor(mean - _TAIL * math.sqrt(mean)))
    values = np.arange(low, math.ceil(mean + _TAIL * math.sqrt(mean)) + _LEAST)
    return low, np.minimum(pdtr(values, mean), 1.0)
