"""One patient moves the exact sum by that patient's own clipped units, and what leaves has the noise that was paid for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.accountant import epsilon
from privacy.bounded_sum import UNITS, BoundedSum, noised_sum, summed, whole_units
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.randomness import ReplayableNoise, SecretNoise

ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
SCALES = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
PAID = SampledGaussian("fit", 2.0, 1.0, 1)


@given(st.lists(ANYTHING, min_size=1, max_size=9), SCALES, st.data())
def test_removing_one_patient_moves_the_sum_by_that_patient_s_units_and_never_beyond_the_bound(
    values: list[float], scale: tuple[float, float], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(values) - 1))
    moved = summed(values, *scale).units - summed(values[:gone] + values[gone + 1 :], *scale).units
    assert moved == whole_units(values[gone], *scale)
    assert -UNITS <= moved <= UNITS


@pytest.mark.parametrize(
    ("value", "units"),
    [(3.0, 0), (3.5, UNITS // 2), (2.0, -UNITS), (4.0, UNITS), (1e300, UNITS), (-math.inf, -UNITS), (math.nan, UNITS)],
)
def test_a_value_is_told_as_its_distance_from_the_middle_of_a_public_scale(value: float, units: int) -> None:
    assert whole_units(value, 3.0, 1.0) == units


@pytest.mark.parametrize("scale", [(0.0, 0.0), (0.0, -1.0), (0.0, math.nan), (math.nan, 1.0), (0.0, math.inf)])
def test_a_scale_that_bounds_nothing_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(MechanismRefused, match="finite positive reach"):
        whole_units(1.0, *scale)


@given(st.integers(-(10**9), 10**9), st.integers(0, 2**31))
def test_the_noise_added_does_not_depend_on_what_it_is_added_to(shift: int, seed: int) -> None:
    event = SampledGaussian("fit", 2.0, 1.0, 1, replayable=True)
    plain, moved = (noised_sum(BoundedSum(units), event, ReplayableNoise(seed)) for units in (0, shift))
    assert moved == plain + shift
    assert type(moved) is int


def test_the_noise_has_the_size_that_was_paid_for() -> None:
    secret = SecretNoise()
    draws = np.array([noised_sum(BoundedSum(0), PAID, secret) for _ in range(1000)], float)
    assert abs(draws.std() / (2.0 * UNITS) - 1) < 5 / math.sqrt(2 * draws.size)
    assert abs(draws.mean()) < 5 * 2.0 * UNITS / math.sqrt(draws.size)


@pytest.mark.slow
def test_the_mechanism_is_as_private_as_the_event_says() -> None:
    """Exactly: total variation beyond e^epsilon of the rounded noise on sums that differ by one patient's most."""
    delta, edges = 1e-3, np.arange(-16 * UNITS, 16 * UNITS) - 0.5
    claimed = epsilon([PAID], delta)
    without, with_one = (np.diff(norm.cdf(edges, loc=units, scale=2.0 * UNITS)) for units in (0, UNITS))
    for p, q in itertools.permutations((without, with_one)):
        assert np.maximum(p - math.exp(claimed) * q, 0).sum() <= delta


@pytest.mark.parametrize("event", [SampledGaussian("fit", 4.0, 0.5, 1), SampledGaussian("fit", 4.0, 1.0, 2)])
def test_a_charge_for_something_else_is_refused(event: SampledGaussian) -> None:
    with pytest.raises(MechanismRefused, match="one step at sample rate 1"):
        noised_sum(BoundedSum(0), event, SecretNoise())
    with pytest.raises(MechanismRefused, match="state what happened"):
        noised_sum(BoundedSum(0), PAID, ReplayableNoise(1))
