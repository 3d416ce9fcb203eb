"""Distances between sets of people: each is its formula, sees what it should see, and says what real against real scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.fid import FIDMetric

from braing3n_core import metrics
from braing3n_core.errors import DataRefused


def people(count: int, seed: int, shift: float = 0.0, features: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, size=(count, features))


@settings(max_examples=25, deadline=None)
@given(st.floats(-5, 5).filter(lambda slope: abs(slope) > 1e-3), st.floats(-100, 100))
def test_correlation_ignores_scale_and_shift(slope: float, shift: float) -> None:
    x = np.array([0.0, 1.0, 4.0, 9.0])
    assert metrics.correlation(x, slope * x + shift) == pytest.approx(math.copysign(1, slope), abs=1e-6)


def test_kid_is_unbiased_and_sees_a_shift() -> None:
    rng = np.random.default_rng(0)
    same = [metrics.kid(rng.normal(size=(20, 8)), rng.normal(size=(20, 8))) for _ in range(200)]
    shifted = [metrics.kid(rng.normal(size=(20, 8)), rng.normal(0.7, 1, size=(20, 8))) for _ in range(20)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    assert min(same) < 0                                     # a biased estimate could never be negative
    assert np.mean(shifted) > 10 * abs(np.mean(same))


def test_kid_is_its_formula() -> None:
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    assert metrics.kid(a, b) == pytest.approx((2 + 1) ** 3 + 1 - 2 * np.mean([1, 4**3, 1, 7**3]))


def test_bootstrap_interval_covers_and_repeats() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=40) for _ in range(100)]
    covered = sum(low < 0 < high for low, high in (metrics.bootstrap_interval(s, 1, resamples=300) for s in samples))
    assert 85 <= covered <= 100
    assert metrics.bootstrap_interval(samples[0], 5) == metrics.bootstrap_interval(samples[0], 5)


def test_bootstrap_keeps_pairs_together() -> None:
    x = np.linspace(0, 1, 30)
    rows = np.stack([x, 2 * x], axis=1)
    low, high = metrics.bootstrap_interval(rows, 0, statistic=lambda r: metrics.correlation(r[:, 0], r[:, 1]), resamples=200)
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_frechet_is_monais() -> None:
    a, b = people(60, 1), people(50, 2, 0.5)
    theirs = float(FIDMetric()(torch.from_numpy(a), torch.from_numpy(b)))
    assert metrics.frechet(a, b) == pytest.approx(theirs, rel=1e-3)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.integers(4, 30))
def test_frechet_of_a_shifted_copy_is_the_squared_shift(shift: float, count: int) -> None:
    a = people(count, 3)
    assert metrics.frechet(a, a + shift) == pytest.approx(6 * shift**2, abs=1e-6)


def test_frechet_of_two_halves_is_bias_and_kid_is_not() -> None:
    a, b = people(40, 1, features=30), people(40, 2, features=30)
    assert metrics.frechet(a, b) > 5
    assert abs(metrics.kid(a, b)) < 0.2


def test_manifold_tells_collapse_from_noise() -> None:
    real = people(200, 1)
    collapsed = real[:1] + 0.01 * people(200, 2)
    noisy = 4 * people(200, 3)
    good, one, wild = (metrics.manifold(real, made) for made in (people(200, 4), collapsed, noisy))
    assert good.coverage > 0.9
    assert good.precision > 0.8
    assert one.precision == 1.0
    assert one.recall < 0.1
    assert one.coverage < 0.1
    assert wild.precision < 0.3
    assert wild.density < 0.3 < good.density
    assert wild.recall > good.recall - 0.2, "recall is blind to outliers; coverage is the one to trust"


def test_manifold_is_its_formula() -> None:
    found = metrics.manifold([[0.0], [1.0], [3.0]], [[0.5], [10.0], [10.5]], neighbours=1)
    # Reaches of real: 1, 1, 2. 0.5 lies within the first two; 10 and 10.5 within none.
    assert found == metrics.Manifold(precision=1 / 3, recall=1.0, density=2 / 3, coverage=2 / 3)


def test_organs_of_the_wrong_size_are_seen() -> None:
    real, made = {"ventricles": [20.0, 30.0, 40.0], "other": [1.0, 2.0]}, {"ventricles": [25.0, 35.0, 45.0]}
    (found,) = metrics.plausibility(real, made)
    assert found == metrics.Plausibility("ventricles", pytest.approx(5.0), pytest.approx(0.5))
    with pytest.raises(DataRefused, match="share no measure"):
        metrics.plausibility({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})
    with pytest.raises(DataRefused, match="constant"):
        metrics.cohens_d([1.0, 1.0], [1.0, 1.0])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(-10, 10))
def test_wasserstein_of_a_shift_is_the_shift(values: list[float], shift: float) -> None:
    assert metrics.wasserstein(values, np.array(values) + shift) == pytest.approx(abs(shift), abs=1e-6)


def test_copies_are_found_and_strangers_are_not() -> None:
    training, held_out, strangers = people(100, 1), people(100, 2), people(100, 3)
    copies = np.concatenate([training[:20] + 0.01, strangers[:80]])
    assert metrics.nearest_ratio(strangers, training, held_out) == pytest.approx(1, abs=0.15)
    assert metrics.nearest_ratio(training + 0.01, training, held_out) < 0.05
    assert metrics.copied_share(strangers, training, held_out) < 0.12
    assert metrics.copied_share(copies, training, held_out) >= 0.2
    with pytest.raises(DataRefused, match="split by patient"):
        metrics.nearest_ratio(strangers, training, training)


def test_a_swap_that_does_nothing_is_told_from_one_that_acts() -> None:
    before = {"ventricles": [20.0, 30.0], "brain": [1000.0, 1100.0]}
    after = {"ventricles": [30.0, 40.0], "brain": [1000.0, 1100.0]}
    others = {"ventricles": [20.0, 40.0], "brain": [900.0, 1200.0, 1100.0]}
    found = metrics.swap_effects(before, after, others)
    assert found["ventricles"] == pytest.approx(1 / math.sqrt(2))
    assert found["brain"] == 0
    with pytest.raises(DataRefused, match="2 or more others who differ"):
        metrics.swap_effects(before, after, {**others, "ventricles": [20.0, 20.0]})
    with pytest.raises(DataRefused, match="same people before and after, got 2 and 1"):
        metrics.swap_effects(before, {**after, "brain": [1000.0]}, others)
    with pytest.raises(DataRefused, match="got 0 and 0"):
        metrics.swap_effects({"brain": []}, {"brain": []}, others)


def test_real_against_real_is_the_floor_at_the_same_size() -> None:
    real, same, other = people(60, 1), people(80, 2), people(80, 3, shift=1.0)
    good, bad = (metrics.against_real(metrics.frechet, real, made, seed=0, draws=40) for made in (same, other))
    assert good.rows == bad.rows == 30
    assert good.low <= good.floor <= good.high
    assert bad.low > bad.floor > 0.3, "two halves of one set are not at zero"
    assert good == metrics.against_real(metrics.frechet, real, same, seed=0, draws=40)


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    def shift(a: np.ndarray, b: np.ndarray) -> float:
        return float(b.mean() - a.mean())

    real, made = people(400, 1, features=1), people(400, 2, features=1)
    found = metrics.against_real(shift, real, made, seed=0, draws=400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(2 / 400), rel=0.15)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_no_set_metric_takes_a_poisoned_number(poison: float) -> None:
    good, bad = people(8, 1), people(8, 2)
    bad[3, 2] = poison
    for call in (
        lambda: metrics.frechet(good, bad),
        lambda: metrics.manifold(good, bad),
        lambda: metrics.wasserstein(good[:, 0], bad[:, 2]),
        lambda: metrics.cohens_d(good[:, 0], bad[:, 2]),
        lambda: metrics.nearest_ratio(bad, good, people(8, 3)),
        lambda: metrics.copied_share(good, bad, people(8, 3)),
        lambda: metrics.swap_effects({"a": good[:, 2]}, {"a": bad[:, 2]}, {"a": good[:, 2]}),
        lambda: metrics.swap_effects({"a": good[:, 2]}, {"a": good[:, 1]}, {"a": bad[:, 2]}),
        lambda: metrics.against_real(metrics.kid, good, bad, 0),
        lambda: metrics.correlation(good[:, 2], bad[:, 2]),
    ):
        with pytest.raises(DataRefused, match="finite"):
            call()


def test_too_few_rows_have_no_score() -> None:
    for call in (
        lambda: metrics.frechet(people(1, 1), people(5, 2)),
        lambda: metrics.manifold(people(5, 1), people(9, 2)),
        lambda: metrics.manifold(people(9, 1), people(9, 2), neighbours=0),
        lambda: metrics.against_real(metrics.kid, people(3, 1), people(9, 2), 0),
        lambda: metrics.against_real(metrics.kid, people(9, 1), people(9, 2), 0, draws=3),
        lambda: metrics.copied_share(people(9, 1), people(9, 2), people(9, 3), level=math.nan),
        lambda: metrics.frechet(people(9, 1, features=3), people(9, 2, features=4)),
        lambda: metrics.wasserstein([], [1.0]),
        lambda: metrics.cohens_d([1.0], [1.0, 2.0]),
    ):
        with pytest.raises(DataRefused):
            call()
