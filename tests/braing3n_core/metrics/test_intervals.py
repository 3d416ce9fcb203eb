"""Repeats: few of them are far from sure, one says nothing, and the interval holds the truth as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from braing3n_core.errors import DataRefused
from braing3n_core.metrics import repeats_interval


def test_one_run_says_nothing_of_others() -> None:
    assert repeats_interval([0.3]) is None
    assert repeats_interval([]) is None
    assert repeats_interval([0.3, 0.3]) == 0


def test_three_runs_are_four_standard_errors() -> None:
    assert repeats_interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)


def test_the_truth_is_inside_as_often_as_stated() -> None:
    runs = np.random.default_rng(1).normal(size=(2000, 3))
    inside = [abs(float(each.mean())) <= (repeats_interval(each.tolist()) or 0) for each in runs]
    assert 0.935 <= np.mean(inside) <= 0.965


def test_a_missing_number_is_refused_by_name() -> None:
    with pytest.raises(DataRefused, match="repeats"):
        repeats_interval([1.0, math.nan])
