"""One patient moves the exact counts by what is stated, and what leaves is whole numbers with the noise that was paid for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.accountant import epsilon
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.marginals import Counts, counted, noised
from privacy.randomness import ReplayableNoise, SecretNoise

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=6)
COUNTED = SampledGaussian("census", 4.0, 1.0, 1)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, ...]]]:
    sizes = draw(SIZES)
    row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return sizes, draw(st.lists(row, min_size=1, max_size=12))


@given(cohorts(), st.data())
def test_removing_one_patient_moves_the_counts_by_the_stated_bound_and_never_more(
    cohort: tuple[list[int], list[tuple[int, ...]]], data: st.DataObject
) -> None:
    sizes, people = cohort
    gone = data.draw(st.integers(0, len(people) - 1))
    whole, rest = counted(people, sizes), counted(people[:gone] + people[gone + 1 :], sizes)
    assert float(np.linalg.norm(whole.values - rest.values)) == pytest.approx(whole.l2_bound)
    assert whole.l2_bound == math.sqrt(len(sizes))
    assert np.abs(whole.values - rest.values).max() == 1
    assert whole.values.sum() == len(people) * len(sizes)


@given(st.integers(-50, 50), st.integers(0, 2**31))
def test_the_noise_added_does_not_depend_on_what_it_is_added_to(shift: int, seed: int) -> None:
    """Else rounding would tell: the same draws on shifted counts give exactly shifted results."""
    sizes = (3, 4)
    event = SampledGaussian("census", 2.0, 1.0, 1, replayable=True)
    plain = noised(Counts(sizes, np.zeros(7, np.int64)), event, ReplayableNoise(seed))
    moved = noised(Counts(sizes, np.full(7, shift, np.int64)), event, ReplayableNoise(seed))
    assert np.array_equal(moved, plain + shift)
    assert moved.dtype == np.int64


def test_noise_has_the_size_that_was_paid_for_and_every_count_its_own() -> None:
    exact = Counts((2,) * 9, np.zeros(18, np.int64))         # nine histograms: the bound is 3
    draws = np.stack([noised(exact, COUNTED, SecretNoise()) for _ in range(600)]).astype(float)
    expected = math.sqrt((4.0 * 3) ** 2 + 1 / 12)            # rounding adds the variance of a uniform number
    assert abs(draws.std() / expected - 1) < 5 / math.sqrt(2 * draws.size)
    assert abs(draws.mean()) < 5 * expected / math.sqrt(draws.size)
    correlations = np.corrcoef(draws.T)[np.triu_indices(18, 1)]
    assert np.abs(correlations).max() < 6 / math.sqrt(600)


def test_the_mechanism_is_as_private_as_the_event_says() -> None:
    """Exactly, for one histogram of one bin: total variation beyond e^epsilon of the rounded noise on 0 and on 1."""
    sigma, delta = 1.3, 1e-3
    event = SampledGaussian("census", sigma, 1.0, 1)
    claimed = epsilon([event], delta)
    edges = np.arange(-60, 61) - 0.5
    from scipy.stats import norm

    without, with_one = (np.diff(norm.cdf(np.append(edges, edges[-1] + 1), loc=count, scale=sigma)) for count in (0, 1))
    for p, q in itertools.permutations((without, with_one)):
        assert np.maximum(p - math.exp(claimed) * q, 0).sum() <= delta


@pytest.mark.parametrize(("rows", "sizes"), [([(0,)], (2, 2)), ([(0, 2)], (2, 2)), ([(-1, 0)], (2, 2)), ([], ()), ([()], (0,))])
def test_a_row_that_is_in_no_bin_or_in_two_is_refused(rows: list[tuple[int, ...]], sizes: tuple[int, ...]) -> None:
    with pytest.raises(MechanismRefused):
        counted(rows, sizes)


@pytest.mark.parametrize("event", [SampledGaussian("census", 4.0, 0.5, 1), SampledGaussian("census", 4.0, 1.0, 2)])
def test_a_charge_for_something_else_is_refused(event: SampledGaussian) -> None:
    with pytest.raises(MechanismRefused, match="one step at sample rate 1"):
        noised(counted([(0,)], (2,)), event, SecretNoise())
    with pytest.raises(MechanismRefused, match="state what happened"):
        noised(counted([(0,)], (2,)), COUNTED, ReplayableNoise(1))
