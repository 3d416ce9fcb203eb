"""Invariants of a site's numbers for a secure sum, tried on the code that makes them: what privacy/selftest.py is to a step.

The masks of a sum hide noise that is not there as well as noise that is, so nobody beyond the site could ever tell. Noise and
bound are held against the EVENTS that the ledger pays for, not against what the code believes its share to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from typing import Final

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from privacy.mechanism import Bounded
from privacy.secure_sum import Noisy, Terms, noisy_sum
from privacy.selftest import Finding, SelfTest, correlated, tested, variance_p

NumbersOf = Callable[[Iterable[Bounded], Terms], Noisy]
_SIZE: Final = 6000                                          # whole numbers of one site
_BOUND: Final = 0.7                                          # clipping bound, not 1, so that a forgotten factor shows
_TERMS: Final = Terms(
    sites=("a", "b", "c", "d", "e", "f"), context="selftest", size=_SIZE, l2_bound=_BOUND, scale=2000.0,
    noise_variance=3e6, most_patients=16, dropped=1, colluding=2,
)  # fmt: skip
_SILENT: Final = replace(_TERMS, noise_variance=1e-15)       # any of it shows in one self-test of 10^10


def run_sum(numbers_of: NumbersOf = noisy_sum) -> SelfTest:
    """Try `numbers_of` (the real one, if none is given) against every invariant. A tenth of a second.

    Guarantee: numbers that are what privacy/secure_sum.py promises fail with probability at most selftest.FALSE_ALARM: six of
    the invariants are statistical, and noise of variance v is Gaussian to a part in v, here a million. Nothing of a site is
    read, nothing is charged, nothing is kept.
    """
    shares = [_values(numbers_of([], _TERMS)) for _ in range(2 * (_TERMS.threshold - _TERMS.colluding))]
    return SelfTest((_whole_numbers(numbers_of), *_noise(shares), _beside_patients(numbers_of)))


def contributions() -> list[Bounded]:
    """Six patients at the bound, no number of theirs whole, and three whose tensors are not what they say. Always the same."""
    generator = torch.Generator().manual_seed(20260101)
    directions = torch.nn.functional.normalize(torch.randn((6, _SIZE), generator=generator), dim=1)
    honest = [Bounded({"w": _BOUND * direction}, _BOUND) for direction in directions]
    false = (10 * _BOUND * directions[0], torch.full((_SIZE,), math.nan), torch.full((_SIZE,), math.inf))
    return [*honest, *(Bounded({"w": tensor}, _BOUND) for tensor in false)]


def _whole_numbers(numbers_of: NumbersOf) -> Finding:
    """Without noise, each patient adds its own rounded numbers, within the bound of the event; who breaks it, nothing."""
    people, allowed = contributions(), _TERMS.event("selftest", 1.0).l2_bound
    whole = numbers_of(people, _SILENT).values
    moved = [whole - numbers_of(people[:i] + people[i + 1 :], _SILENT).values for i in range(len(people))]
    farthest = max(float(np.linalg.norm(one.astype(np.float64))) for one in moved)
    rounded = all(np.array_equal(one, _expected(person)) for one, person in zip(moved, people, strict=True))
    holds = farthest <= allowed and rounded and np.issubdtype(whole.dtype, np.integer)
    words = "each is rounded alone" if rounded else "not by its own rounded numbers"
    return Finding("whole numbers", holds, f"one patient moves them by up to {farthest:.6g}, allowed {allowed:.6g}; {words}")


def _noise(shares: list[Tensor]) -> list[Finding]:
    """A share is what the local event pays for; those of the fewest honest sites together, what the event of the sum does."""
    alone = math.sqrt(_TERMS.local_event("selftest", 1.0).noise_variance)
    together = math.sqrt(_TERMS.event("selftest", 1.0).noise_variance)
    sums = torch.stack(shares).unflatten(0, (2, -1)).sum(1).flatten()
    values, half = torch.cat(shares), _SIZE // 2
    between = [correlated(a, b) for a, b in combinations(shares, 2)]
    within = [correlated(share[:half], share[half:]) for share in shares]
    return [
        tested("noise share", variance_p(values, alone), f"deviation {values.std():.4g}, accounted {alone:.4g}"),
        tested("noise of the sum", variance_p(sums, together), f"deviation {sums.std():.4g}, accounted {together:.4g}"),
        tested("noise share's shape", _whole_gaussian_p(values, alone), "distance from the distribution function"),
        tested("noise between shares", min(1.0, len(between) * min(between)), "correlation between any two shares"),
        tested("noise within a share", min(1.0, len(within) * min(within)), "correlation between the halves of a share"),
    ]


def _beside_patients(numbers_of: NumbersOf) -> Finding:
    """Noise beside patients is the same noise: less their rounded numbers, nothing else is left."""
    people = contributions()
    left = _values(numbers_of(people, _TERMS)) - torch.from_numpy(sum(_expected(person) for person in people)).double()
    deviation = math.sqrt(_TERMS.local_event("selftest", 1.0).noise_variance)
    found = f"deviation {left.std():.4g} beside patients, accounted {deviation:.4g}"
    return tested("noise share beside patients", variance_p(left, deviation), found)


def _expected(person: Bounded) -> np.ndarray:
    """(size,) int64, said again in other words than privacy/integer_noise.py's."""
    tensor = person.tensors["w"].double()
    within = float(tensor.norm()) <= 1.001 * person.l2_bound  # NaN and infinite fail
    return np.asarray((tensor * _TERMS.scale).round().long() if within else torch.zeros(_SIZE, dtype=torch.int64))


def _whole_gaussian_p(values: Tensor, deviation: float) -> float:
    """As selftest's for numbers that move in whole steps: between two of them the distribution function does not rise."""
    seen, counts = values.unique(return_counts=True)
    ranks = torch.cat([torch.zeros(1, dtype=torch.float64), counts.double().cumsum(0) / len(values)])
    at, before = (torch.from_numpy(norm.cdf(((seen + shift) / deviation).numpy())) for shift in (0.5, -0.5))
    distance = float(torch.maximum((ranks[1:] - at).abs(), (ranks[:-1] - before).abs()).max())
    return 2 * math.exp(-2 * len(values) * distance**2) if math.isfinite(distance) else 0.0


def _values(numbers: Noisy) -> Tensor:
    return torch.from_numpy(np.asarray(numbers.values)).double()
