"""From events to (epsilon, delta). One accountant over everything that happened to the same patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

from privacy.errors import MechanismRefused
from privacy.events import Event, RandomisedResponse, SampledGaussian
from privacy.opacus_bridge import Segment, prv_epsilon, rdp_epsilon


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Privacy spent by `events` on one patient, at `delta`.

    Guarantee: an upper bound (PRV, error 0.01 included) on epsilon for add-or-remove-one-patient neighbours, composed
    over all events. Fails closed: an event this accountant cannot bound, and any event whose noise could be replayed
    from a seed, costs infinity. No events cost 0.

    Votes are pure and are added (basic composition: (a, delta) and (b, 0) give (a + b, delta)). That is nearly tight here:
    a vote's privacy loss is +-epsilon and sits at +epsilon with probability e^epsilon / (1 + e^epsilon).
    """
    segments = _segments(events, delta)
    return math.inf if segments is None else _prv(segments, delta) + _votes(events)


def epsilon_upper(events: Sequence[Event], delta: float) -> float:
    """A looser bound (RDP) printed beside `epsilon`, so that a reader sees two accountants agree on the order."""
    segments = _segments(events, delta)
    return math.inf if segments is None else rdp_epsilon(segments, delta) + _votes(events)


def epsilon_across(sites: Sequence[Sequence[Event]], most: int, delta: float) -> float:
    """Privacy spent on a patient whose scans may be at up to `most` of `sites`, each with its own events.

    Sites that share no patient compose in parallel: with `most` = 1 this is the largest site's epsilon, which is what a
    federation states when it assumes that every patient is at one site. A patient at several sites is in all their events,
    so these compose; the worst choice of `most` sites counts. Guarantee: an upper bound, as `epsilon`, for every patient who
    is at no more than `most` sites. Sites with alike events, the usual case, are tried once.
    """
    if not (sites and 1 <= most <= len(sites)):
        raise MechanismRefused(f"a patient can be at 1 to {len(sites)} of {len(sites)} sites, not {most}; say how many at most")
    if any(_segments(events, delta) is None for events in sites):
        return math.inf
    choices = {_segments([event for site in chosen for event in site], delta) for chosen in combinations(sites, most)}
    return max(_prv(segments, delta) for segments in choices if segments is not None)


def _segments(events: Sequence[Event], delta: float) -> tuple[Segment, ...] | None:
    """Equal steps merged, so that a hundred rounds of one stage cost one segment; None if any event is unbounded."""
    if not 0 < delta < 1:
        raise MechanismRefused(f"delta {delta} must be between 0 and 1; below 1 / (10 x patients) is usual")
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        match event:
            case SampledGaussian(replayable=False):
                key = (event.noise_multiplier, event.sample_rate)
                steps[key] = steps.get(key, 0) + event.steps
            case RandomisedResponse(replayable=False):
                pass
            case _:
                return None
    return tuple((sigma, rate, count) for (sigma, rate), count in sorted(steps.items()))


def _votes(events: Sequence[Event]) -> float:
    return sum(event.epsilon for event in events if isinstance(event, RandomisedResponse))


@lru_cache(maxsize=4096)
def _prv(segments: tuple[Segment, ...], delta: float) -> float:
    return prv_epsilon(segments, delta)


def calibrate(stages: Sequence[tuple[float, int, float]], target: float, delta: float) -> tuple[float, ...]:
    """Noise multipliers for `stages` of (sample rate, steps, share) that together spend at most `target` epsilon.

    A stage's share is its part of the squared privacy loss mu^2 = rate^2 x steps / sigma^2, the limit in which
    subsampled Gaussian steps compose (Dong, Roth, Su, arXiv 1905.02383); one common scale is then solved for by
    bisection with the accountant itself, so the answer is exact whatever the limit is worth.

    Guarantee: epsilon of the returned noise is <= target, and within 1 % of it.
    """
    if not (target > 0 and math.isfinite(target)):
        raise MechanismRefused(f"target epsilon {target} must be a finite positive number")
    if not stages:
        raise MechanismRefused("no stages to calibrate")

    def sigmas(scale: float) -> tuple[float, ...]:
        return tuple(scale * rate * math.sqrt(steps / share) for rate, steps, share in stages)

    def spent(scale: float) -> float:
        rows = zip(sigmas(scale), stages, strict=True)
        return epsilon([SampledGaussian("", sigma, rate, steps) for sigma, (rate, steps, _) in rows], delta)

    low = high = 1.0
    while spent(high) > target:
        high *= 2
    while low > 1e-3 and spent(low) <= target:
        low, high = low / 2, low
    while not 0.99 * target <= spent(high) <= target:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
    return sigmas(high)
