"""From events to (epsilon, delta). One accountant over everything that happened to the same patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from privacy.errors import MechanismRefused
from privacy.events import Event, RandomisedResponse, SampledGaussian, SecureSummed
from privacy.opacus_bridge import Segment, prv_epsilon
from privacy.renyi import converted, sampled_gaussian, sampled_skellam


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Privacy spent by `events` on one patient, at `delta`.

    Guarantee: an upper bound on epsilon for add-or-remove-one-patient neighbours, composed over all events: PRV, error 0.01
    included, or Renyi accounting, looser by about a tenth, as soon as one event is a secure sum. Fails closed: an event this
    accountant cannot bound, and any event whose noise could be replayed from a seed, costs infinity. No events cost 0.

    Votes are pure and are added (basic composition: (a, delta) and (b, 0) give (a + b, delta)). That is nearly tight here:
    a vote's privacy loss is +-epsilon and sits at +epsilon with probability e^epsilon / (1 + e^epsilon).
    """
    account = merged(events, delta)
    return math.inf if account is None else _spent(account, delta)


def epsilon_alone(events: Sequence[Event], delta: float) -> float:
    """Privacy spent on one patient against the server and ALL other sites working together: the local fallback.

    Of a secure sum only the noise of the patient's own site is unknown to them; every other event costs what it costs.
    """
    return epsilon([event.alone if isinstance(event, SecureSummed) else event for event in events], delta)


def epsilon_upper(events: Sequence[Event], delta: float) -> float:
    """A looser bound by Renyi accounting at whole orders, printed beside `epsilon` (arXiv 1702.07476); fast. Votes added."""
    account = merged(events, delta)
    return math.inf if account is None else _renyi(account, delta)


def epsilon_across(sites: Sequence[Sequence[Event]], most: int, delta: float) -> float:
    """Privacy spent on a patient whose scans may be at up to `most` of `sites`, each with its own events.

    Sites that share no patient compose in parallel: with `most` = 1 this is the largest site's epsilon, which is what a
    federation states when it assumes that every patient is at one site. A patient at several sites is in all their events,
    so these compose; the worst choice of `most` sites counts. Guarantee: an upper bound, as `epsilon`, for every patient who
    is at no more than `most` sites. Sites with alike events, the usual case, are tried once.
    """
    if not (sites and 1 <= most <= len(sites)):
        raise MechanismRefused(f"a patient can be at 1 to {len(sites)} of {len(sites)} sites, not {most}; say how many at most")
    if any(merged(events, delta) is None for events in sites):
        return math.inf
    choices = {merged([event for site in chosen for event in site], delta) for chosen in combinations(sites, most)}
    return max(_spent(account, delta) for account in choices if account is not None)


@dataclass(frozen=True)
class Account:
    """Equal steps merged, so that a hundred rounds of one stage cost one segment."""

    gaussians: tuple[Segment, ...]
    sums: tuple[tuple[float, float, int, float, int], ...]   # variance, l2 bound, size, sample rate, steps
    votes: float                                             # epsilons of all votes together


def merged(events: Sequence[Event], delta: float) -> Account | None:
    """The events as accountants count them; None if one of them is unbounded."""
    if not 0 < delta < 1:
        raise MechanismRefused(f"delta {delta} must be between 0 and 1; below 1 / (10 x patients) is usual")
    gaussians: dict[tuple[float, float], int] = {}
    sums: dict[tuple[float, float, int, float], int] = {}
    votes = 0.0
    for event in events:
        match event:
            case SampledGaussian(replayable=False):
                key = (event.noise_multiplier, event.sample_rate)
                gaussians[key] = gaussians.get(key, 0) + event.steps
            case SecureSummed():
                kind = (event.noise_variance, event.l2_bound, event.size, event.sample_rate)
                sums[kind] = sums.get(kind, 0) + event.steps
            case RandomisedResponse(replayable=False):
                votes += event.epsilon
            case _:
                return None
    merged = tuple((sigma, rate, count) for (sigma, rate), count in sorted(gaussians.items()))
    return Account(merged, tuple((*kind, count) for kind, count in sorted(sums.items())), votes)


@lru_cache(maxsize=4096)
def _spent(account: Account, delta: float) -> float:
    return _renyi(account, delta) if account.sums else prv_epsilon(account.gaussians, delta) + account.votes


def _renyi(account: Account, delta: float) -> float:
    steps = [count * sampled_gaussian(sigma, rate) for sigma, rate, count in account.gaussians]
    steps += [count * sampled_skellam(*kind) for *kind, count in account.sums]
    return (converted(np.sum(steps, axis=0), delta) if steps else 0.0) + account.votes


def calibrate(stages: Sequence[tuple[float, int, float]], target: float, delta: float) -> tuple[float, ...]:
    """Noise multipliers for `stages` of (sample rate, steps, share) that together spend at most `target` epsilon.

    A stage's share is its part of the squared privacy loss mu^2 = rate^2 x steps / sigma^2, the limit in which
    subsampled Gaussian steps compose (Dong, Roth, Su, arXiv 1905.02383); one common scale is then solved for by
    bisection with the accountant itself, so the answer is exact whatever the limit is worth.

    Guarantee: epsilon of the returned noise is <= target, and within 1 % of it.
    """

    def spent(sigmas: Sequence[float]) -> float:
        rows = zip(sigmas, stages, strict=True)
        return epsilon([SampledGaussian("", sigma, rate, steps) for sigma, (rate, steps, _) in rows], delta)

    return _calibrated(stages, target, spent)


def calibrate_sums(
    stages: Sequence[tuple[float, int, float]], numbers: Sequence[tuple[float, int]], target: float, delta: float
) -> tuple[float, ...]:
    """Noise variances for secure sums: `calibrate`, for sums of whole numbers of (L2 bound, size), one for each stage.

    Guarantee: epsilon of the returned noise is <= target, and within 1 % of it.
    """

    def variances(sigmas: Sequence[float]) -> tuple[float, ...]:
        return tuple(sigma * bound * sigma * bound for sigma, (bound, _) in zip(sigmas, numbers, strict=True))

    def spent(sigmas: Sequence[float]) -> float:
        rows = zip(variances(sigmas), stages, numbers, strict=True)
        return epsilon([SecureSummed("", v, bound, size, rate, steps, 1) for v, (rate, steps, _), (bound, size) in rows], delta)

    return variances(_calibrated(stages, target, spent))


def _calibrated(
    stages: Sequence[tuple[float, int, float]], target: float, spent: Callable[[Sequence[float]], float]
) -> tuple[float, ...]:
    if not (target > 0 and math.isfinite(target)):
        raise MechanismRefused(f"target epsilon {target} must be a finite positive number")
    if not stages:
        raise MechanismRefused("no stages to calibrate")

    def sigmas(scale: float) -> tuple[float, ...]:
        return tuple(scale * rate * math.sqrt(steps / share) for rate, steps, share in stages)

    low = high = 1.0
    while not spent(sigmas(high)) <= target:
        high *= 2
    while low > 1e-3 and spent(sigmas(low)) <= target:
        low, high = low / 2, low
    while not 0.99 * target <= spent(sigmas(high)) <= target:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(sigmas(middle)) <= target else (middle, high)
    return sigmas(high)
