"""A share of what real people teach: 1 for their equals, 0 for those who teach nothing, and none where there is no gain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core import metrics
from braing3n_core.errors import DataRefused

RNG = np.random.default_rng(0)
NOTHING = RNG.uniform(8, 12, 60)
REAL = RNG.uniform(3, 5, 60)


def test_equals_teach_all_and_those_who_know_nothing_teach_none() -> None:
    same = metrics.taught(NOTHING, REAL, REAL, seed=1)
    assert (same.share, same.low, same.high) == (1, 1, 1)
    none = metrics.taught(NOTHING, REAL, NOTHING, seed=1)
    assert (none.share, none.low, none.high) == (0, 0, 0)
    worse = metrics.taught(NOTHING, REAL, 2 * NOTHING, seed=1)
    assert worse.share < 0, "people who mislead are not hidden"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 2), st.floats(0.01, 100))
def test_the_share_is_a_part_of_the_gain_in_any_unit(part: float, unit: float) -> None:
    made = NOTHING - part * (NOTHING - REAL)
    found = metrics.taught(unit * NOTHING, unit * REAL, unit * made, seed=2)
    assert found.share == pytest.approx(part, abs=1e-9)
    assert found.low == pytest.approx(found.high, abs=1e-9), "errors of one person stay together"


def test_the_interval_is_over_people_and_narrows_with_them() -> None:
    made = REAL + RNG.uniform(-2, 3, 60)
    few, many = (metrics.taught(*(np.tile(each, n) for each in (NOTHING, REAL, made)), seed=3) for n in (1, 9))
    assert few.low < few.share < few.high
    assert many.high - many.low == pytest.approx((few.high - few.low) / 3, rel=0.3)


@pytest.mark.parametrize("made", [REAL[:-1], np.full(60, math.nan)])
def test_errors_that_do_not_match_or_are_missing_are_refused(made: np.ndarray) -> None:
    with pytest.raises(DataRefused):
        metrics.taught(NOTHING, REAL, made, seed=0)


def test_there_is_no_share_of_what_real_people_do_not_teach() -> None:
    right = RNG.integers(0, 2, 30).astype(float)
    with pytest.raises(DataRefused, match="nothing sure"):
        metrics.taught(right, RNG.permutation(right), right, seed=0)
    with pytest.raises(DataRefused, match="nothing sure"):
        metrics.taught(REAL, NOTHING, REAL, seed=0)
