"""What right guesses refute: lower bounds on epsilon, and intervals for rates. Numbers only, no training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import beta, binom

from privacy.errors import MechanismRefused

_COUNTS: Final = (50, 100, 200, 500, 1000, 2000)             # how many of the surest guesses are counted
_MOST: Final = 60.0                                          # epsilon or mu above which nobody asks


@dataclass(frozen=True, eq=False)
class Guesses:
    """An attacker's score of every canary, high for "in", and the coins that decided, both (m,)."""

    scores: np.ndarray
    coins: np.ndarray

    def __post_init__(self) -> None:
        if not (self.scores.shape == self.coins.shape and self.scores.ndim == 1 and np.isfinite(self.scores).all()):
            raise MechanismRefused("an audit needs one finite score for each coin; the released gradients are not finite")

    @property
    def tried(self) -> list[tuple[int, int]]:
        """(guesses, right ones) for the surest 50, 100, ...: half of them "in", from the top, half "out"."""
        order, tried = np.argsort(self.scores), []
        for half in (count // 2 for count in _COUNTS if count <= len(order)):
            tried.append((2 * half, int(self.coins[order[-half:]].sum() + (~self.coins[order[:half]]).sum())))
        return tried


def one_run_epsilon(guesses: Guesses, delta: float, alpha: float) -> float:
    """Largest epsilon that the right guesses refute, for any (epsilon, delta)-private step, at significance `alpha`.

    Theorem 5.2 of Steinke, Nasr, Jagielski (arXiv 2305.08846); Bonferroni over how many guesses are counted.
    """
    tried, size = guesses.tried, len(guesses.coins)

    def refuted(candidate: float) -> bool:
        return any(_p_value(size, made, right, candidate, delta) < alpha / len(tried) for made, right in tried)

    return _largest(refuted)


def one_run_mu(guesses: Guesses, alpha: float) -> float:
    """Largest mu such that mu-Gaussian privacy is refuted by the right guesses, at significance `alpha`.

    Algorithm of Mahloujifar, Melis, Chaudhuri (arXiv 2410.22235) with the Gaussian trade-off curve; sharper than
    `one_run_epsilon` because it uses the whole curve. Bonferroni over how many guesses are counted.
    """
    tried, size = guesses.tried, len(guesses.coins)
    return _largest(lambda mu: any(_refutes_mu(size, made, right, mu, alpha / len(tried)) for made, right in tried))


def gaussian_mu(guesses: Guesses, alpha: float) -> float:
    """Largest mu such that some threshold's error rates refute mu-Gaussian privacy, canaries taken as independent.

    Nasr et al. (arXiv 2302.07956) with Clopper-Pearson bounds; Bonferroni over thresholds and the two rates. Exact for
    canaries with orthogonal gradients, heuristic otherwise.
    """
    inside, outside = guesses.scores[guesses.coins], guesses.scores[~guesses.coins]
    thresholds = np.quantile(guesses.scores, np.linspace(0.02, 0.98, 25))
    level, best = alpha / (2 * len(thresholds)), 0.0
    for threshold in thresholds:
        missed = clopper_pearson_upper(int((inside < threshold).sum()), len(inside), level)
        false = clopper_pearson_upper(int((outside >= threshold).sum()), len(outside), level)
        best = max(best, float(-ndtri(false) - ndtri(missed)))
    return best


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of mu-Gaussian privacy at `delta` (Dong, Roth, Su, arXiv 1905.02383); 0 for mu = 0."""
    if mu <= 0 or _gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    return float(brentq(lambda value: _gaussian_delta(mu, value) - delta, 0, mu**2 / 2 + 40 * mu))


def covering_mu(claims: Sequence[tuple[float, float]]) -> float:
    """Smallest mu whose Gaussian curve allows everything that the (epsilon, delta) `claims` of one mechanism allow."""
    return max(_mu_of(epsilon, delta) for epsilon, delta in claims)


def clopper_pearson_upper(successes: int, trials: int, level: float) -> float:
    """Exact upper confidence bound of a rate: it is below the truth with probability at most `level`."""
    return float(beta.ppf(1 - level, successes + 1, trials - successes)) if successes < trials else 1.0


def _mu_of(epsilon: float, delta: float) -> float:
    return float(brentq(lambda mu: _gaussian_delta(mu, epsilon) - delta, 1e-9, _MOST))


def _gaussian_delta(mu: float, epsilon: float) -> float:
    # The second term in logarithms: e^epsilon alone would overflow where the product is small.
    return float(ndtr(mu / 2 - epsilon / mu)) - math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)))


def _p_value(size: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """Chance of `right` or more right among `made` guesses on `size` canaries of an (epsilon, delta)-private step."""
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, made, accuracy))
    if right == 0:
        return tail
    shifts = np.arange(1, right + 1)
    slope = float(np.max((binom.sf(right - shifts - 1, made, accuracy) - tail) / shifts, initial=0.0))
    return min(1.0, tail + slope * delta * 2 * size)


def _refutes_mu(size: int, made: int, right: int, mu: float, alpha: float) -> bool:
    """Whether `right` of `made` guesses have a chance below `alpha` under mu-Gaussian privacy.

    If the chance were `alpha`, right guesses would have at least the mass `hits` and wrong ones `misses` at `right`; the
    curve then forces more of both at each smaller count. More mass than there are guesses is a contradiction.
    """
    hits, misses = alpha * right / size, alpha * (made - right) / size
    for count in range(right - 1, -1, -1):
        forced = max(misses, float(ndtr(ndtri(min(hits, 1.0)) - mu)))
        if forced == misses:
            break
        hits, misses = hits + count / (made - count) * (forced - misses), forced
    return hits + misses > made / size


def _largest(refuted: Callable[[float], bool]) -> float:
    """Largest value in [0, 60] that is refuted, given that smaller values are too; 0 if none is."""
    if refuted(_MOST):
        return _MOST
    low, high = 0.0, _MOST
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
