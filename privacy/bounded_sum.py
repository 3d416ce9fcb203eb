"""One number of every patient, added up over a site and noised: a sum in whole units, of which a patient moves a bounded few.

Each value is clipped and rounded BEFORE it is added, so a patient moves the sum by exactly that patient's own whole units; the
noise is whole too (privacy/marginals.py). What the sum is divided by afterwards has to be public: a count would be a release.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.marginals import rounded_noise
from privacy.randomness import Randomness

UNITS: Final = 1000                                          # in one reach: rounding moves nobody by more than half of one


@dataclass(frozen=True)
class BoundedSum:
    """An exact sum. Adding or removing one patient with all scans moves `units` by at most UNITS either way."""

    units: int


def whole_units(value: float, middle: float, reach: float) -> int:
    """One patient's part: how far `value` lies from `middle`, clipped to `reach` either way, in UNITS of it.

    Guarantee: between -UNITS and UNITS, whatever the value; what is not a number counts as far above.

    | value - middle    | result                     |
    |-------------------|----------------------------|
    | within +-reach    | rounded to whole units     |
    | beyond, infinite  | -UNITS or UNITS            |
    | NaN               | UNITS                      |
    """
    if not (reach > 0 and math.isfinite(reach) and math.isfinite(middle)):
        raise MechanismRefused(f"a value is told within a finite positive reach of a finite middle, not {reach} of {middle}")
    part = (value - middle) / reach
    if not part < 1:
        return UNITS
    return round(UNITS * max(part, -1.0))


def summed(values: Iterable[float], middle: float, reach: float) -> BoundedSum:
    """The sum over PATIENTS, one value each, whatever the number of scans.

    Guarantee: adding or removing one patient moves it by that patient's `whole_units` and by nothing else, if `values` of the
    others do not depend on who else is there; whose draws come from a stream that all patients share, they do.
    """
    return BoundedSum(sum(whole_units(value, middle, reach) for value in values))


def noised_sum(exact: BoundedSum, event: SampledGaussian, randomness: Randomness) -> int:
    """The sum that may leave, in whole units.

    Guarantee: `event`, for adding or removing one patient with all scans: Gaussian noise of deviation noise_multiplier x UNITS,
    rounded. Every patient is in it once, so the event is one step at rate 1.
    """
    return exact.units + int(rounded_noise(1, float(UNITS), event, randomness)[0])
