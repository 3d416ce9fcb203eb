"""The attack's numbers: intervals that hold, silence where nothing leaked, alarm where it did."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from privacy.errors import MechanismRefused
from privacy.membership import Membership, Rate, membership, wilson


def scores(seed: int, shift: float = 0.0, count: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count) + shift


@given(trials=st.integers(1, 500), data=st.data(), confidence=st.floats(0.5, 0.999))
def test_wilson_is_another_librarys_wilson(trials: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, trials))
    rate = wilson(successes, trials, confidence)
    witness = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (rate.low, rate.high) == pytest.approx((witness.low, witness.high), abs=1e-9)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@pytest.mark.parametrize("truth", [0.01, 0.1, 0.5])
def test_wilson_contains_the_truth_about_as_often_as_it_says(truth: float) -> None:
    counts = np.arange(501)
    weights = binom.pmf(counts, 500, truth)
    holds = [wilson(int(count), 500).low <= truth <= wilson(int(count), 500).high for count in counts]
    assert weights[holds].sum() > 0.92


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 2, math.nan)])
def test_no_interval_for_what_cannot_be_counted(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(MechanismRefused):
        wilson(successes, trials, confidence)


def test_nothing_leaked_is_nothing_found() -> None:
    found = membership(scores(1), scores(2), scores(3))
    assert not found.leaks
    assert found.risk < 0.02
    assert found.auc.low < 0.5 < found.auc.high
    assert found.control.low < found.baseline < found.control.high


def test_a_few_patients_given_away_are_found_though_the_average_is_blind() -> None:
    members = scores(1)
    members[:100] += 8
    found = membership(members, scores(2), scores(3))
    assert found.leaks
    assert found.risk == pytest.approx(0.05, abs=0.01)
    assert found.auc.value < 0.55


def test_a_difference_between_hospitals_is_not_taken_for_a_leak() -> None:
    found = membership(scores(1, 1.0), scores(2, 1.0), scores(3))
    assert not found.leaks
    assert found.control.low > found.baseline, "and the control shows that the groups differ"


def test_a_perfect_attack_has_the_whole_risk() -> None:
    found = membership(scores(1, 20.0), scores(2), scores(3))
    assert found.attack == Rate(1.0, found.attack.low, 1.0)
    assert found.risk == 1
    assert found.auc == Rate(1.0, 1.0, 1.0)


def test_equal_scores_are_a_coin() -> None:
    same = np.zeros(100)
    assert membership(same, same, same).auc.value == 0.5
    assert not membership(same, same, same).leaks


def test_a_control_of_one_leaves_no_risk() -> None:
    one = Rate(1.0, 0.9, 1.0)
    assert Membership(one, one, 0.01, one).risk == 0


@pytest.mark.parametrize("group", range(3))
@pytest.mark.parametrize("wrong", [np.array([0.0, math.nan]), np.array([1.0]), np.zeros((2, 2))])
def test_scores_that_are_none_are_refused(group: int, wrong: np.ndarray) -> None:
    groups = [scores(1), scores(2), scores(3)]
    groups[group] = wrong
    with pytest.raises(MechanismRefused):
        membership(*groups)


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0, math.nan])
def test_a_threshold_finer_than_the_reference_is_refused(share: float) -> None:
    with pytest.raises(MechanismRefused, match="take more"):
        membership(scores(1), scores(2), scores(3, count=100), share)
