"""Renyi divergences of one step at whole orders, and what their sum means as (epsilon, delta)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import gammaln, logsumexp

ORDERS: Final = np.array([*range(2, 65), 80, 96, 128, 192, 256, 512, 1024])
_ALL: Final = np.arange(ORDERS[-1] + 1)                      # the sums below run over every order up to the largest


@lru_cache(maxsize=4096)
def sampled_gaussian(noise_multiplier: float, sample_rate: float) -> np.ndarray:
    """(orders,) of a Poisson-sampled Gaussian step, exact (Mironov, Talwar, Zhang, arXiv 1908.10530, section 3.3)."""
    if sample_rate == 1:
        return np.asarray(ORDERS / (2 * noise_multiplier**2))
    terms = _binomial(sample_rate) + (_ALL**2 - _ALL) / (2 * noise_multiplier**2)
    return np.asarray(logsumexp(terms, axis=1) / (ORDERS - 1))


@lru_cache(maxsize=4096)
def sampled_skellam(variance: float, l2_bound: float, size: int, sample_rate: float) -> np.ndarray:
    """(orders,) of a Poisson-sampled sum of (size,) whole numbers with Skellam noise: an upper bound.

    Without sampling by Corollary 3.6 of Agarwal, Kairouz, Liu (arXiv 2110.04995); whole numbers have an L1 norm of at most
    their squared L2 norm. Sampling, for P with the patient and Q without: the mixture's moment E_Q[(1 - q + q P/Q)^order] is
    expanded term by term, and its terms are those bounds. The other direction is no larger, because x -> k - x swaps P and Q
    (Theorem 5 of arXiv 1908.10530), as Skellam noise is symmetric.
    """
    whole = _skellam(variance, l2_bound, size)
    if sample_rate == 1:
        return np.asarray(whole[ORDERS])
    return np.asarray(logsumexp(_binomial(sample_rate) + np.maximum(_ALL - 1, 0) * whole, axis=1) / (ORDERS - 1))


def converted(renyi: np.ndarray, delta: float) -> float:
    """Epsilon at `delta` of a mechanism with divergences `renyi` (orders,), at the best order.

    Proposition 12 of Canonne, Kamath, Steinke (arXiv 2004.00010).
    """
    spent = renyi + np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return max(0.0, float(np.min(spent)))


def _skellam(variance: float, l2_bound: float, size: int) -> np.ndarray:
    """At every order from 0; 0 and 1 count nothing."""
    square = l2_bound**2
    l1_bound = min(math.sqrt(size) * l2_bound, square)
    beyond = np.minimum(((2 * _ALL - 1) * square + 6 * l1_bound) / (4 * variance**2), 3 * l1_bound / (2 * variance))
    return np.where(_ALL >= 2, _ALL * square / (2 * variance) + beyond, 0.0)


def _binomial(sample_rate: float) -> np.ndarray:
    """(orders, all): log of C(order, k) q^k (1 - q)^(order - k), minus infinity for k > order."""
    order = ORDERS[:, None]
    chosen = np.where(order >= _ALL, gammaln(order + 1) - gammaln(_ALL + 1) - gammaln(np.maximum(order - _ALL, 0) + 1), -np.inf)
    return np.asarray(chosen + _ALL * math.log(sample_rate) + (order - _ALL) * math.log1p(-sample_rate))
