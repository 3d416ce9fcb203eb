"""How many patients are in each bin of each variable, noised: one histogram a variable, released once.

Gaussian noise is rounded to whole numbers BEFORE it is added to whole counts. A count plus rounded noise is the rounded noisy
count, so this is post-processing of the Gaussian mechanism (Dwork and Roth, Foundations of DP, appendix A), accounted like a
training step; and the last bits of a floating-point sum, which can tell on its terms (Mironov, CCS 2012), are never there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.randomness import Randomness

Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Exact counts, one histogram after another. One patient changes one bin of each, by one: `l2_bound` in all."""

    sizes: tuple[int, ...]                                   # bins of each histogram
    values: Whole                                            # (sum of sizes,)

    @property
    def l2_bound(self) -> float:
        """How far adding or removing one patient moves `values`, in L2 norm."""
        return math.sqrt(len(self.sizes))


def counted(people: Iterable[Sequence[int]], sizes: Sequence[int]) -> Counts:
    """Count one row per PATIENT, whatever the number of scans: the patient's bin in every histogram.

    Guarantee: adding or removing one patient changes exactly one bin of each histogram by one, so the whole by sqrt(histograms)
    in L2 norm. Raises MechanismRefused on a row of another length or a bin that is not there.
    """
    if not (sizes and all(type(size) is int and size >= 1 for size in sizes)):
        raise MechanismRefused("a census needs at least one histogram, each of at least one bin")
    starts, values = np.cumsum([0, *sizes]), np.zeros(sum(sizes), np.int64)
    for row in people:
        if not (len(row) == len(sizes) and all(0 <= place < size for place, size in zip(row, sizes, strict=True))):
            raise MechanismRefused("a patient is in one bin of each histogram; a row names more, fewer, or one that is none")
        for start, place in zip(starts[:-1], row, strict=True):
            values[start + place] += 1
    return Counts(tuple(sizes), values)


def noised(exact: Counts, event: SampledGaussian, randomness: Randomness) -> Whole:
    """The counts that may leave: whole numbers, some of them negative.

    Guarantee: `event`, for adding or removing one patient with all scans: independent Gaussian noise of deviation
    noise_multiplier x l2_bound on every count, rounded. Every patient is in it once, so the event is one step at rate 1.
    """
    return exact.values + rounded_noise(len(exact.values), exact.l2_bound, event, randomness)


def rounded_noise(count: int, l2_bound: float, event: SampledGaussian, randomness: Randomness) -> Whole:
    """(count,) Gaussian draws of deviation noise_multiplier x `l2_bound`, independent, rounded: one release of every patient.

    Raises MechanismRefused unless the event is one step at rate 1 whose noise is as secret as it says.
    """
    if not (event.sample_rate == 1 and event.steps == 1):
        raise MechanismRefused("this is one release of every patient; charge one step at sample rate 1")
    if event.replayable != randomness.replayable:
        raise MechanismRefused("the event says the noise is secret and it is not, or the reverse; state what happened")
    draws = randomness.normal(count).numpy() * (event.noise_multiplier * l2_bound)
    # Half up, not half to even: only then does rounding commute with adding a whole number.
    return np.floor(draws + 0.5).astype(np.int64)
