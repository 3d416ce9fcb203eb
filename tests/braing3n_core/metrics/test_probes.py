"""A probe reads what is there, nothing that is not, and never looks at the people it is tested on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core import metrics
from braing3n_core.errors import DataRefused

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(80, 300))                            # more features than people
AGE = 50 + 10 * ROWS[:, :20].mean(1, keepdims=True) * math.sqrt(20)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=8, max_size=60), st.integers(0, 99))
def test_no_person_is_on_both_sides(visits: list[int], seed: int) -> None:
    people = [f"sub-{number}" for number in visits]
    if len(set(people)) < 3:
        return
    folds = metrics.deal(people, 3, seed)
    assert all(len({fold for name, fold in zip(people, folds, strict=True) if name == one}) == 1 for one in set(people))
    assert set(folds) == {0, 1, 2}


def test_what_features_carry_is_read_and_noise_is_not() -> None:
    folds = metrics.deal([str(row) for row in range(80)], 5, 0)
    signal = np.concatenate([3 * AGE, ROWS], 1)
    mean = float(np.abs(AGE - AGE.mean()).mean())
    assert np.abs(metrics.cross_validated(signal[:, :30], AGE, folds) - AGE).mean() < 0.3 * mean
    shuffled = RNG.permutation(AGE)
    assert np.abs(metrics.cross_validated(ROWS, shuffled, folds) - shuffled).mean() > 0.85 * mean


def test_a_tested_person_has_no_say() -> None:
    folds = metrics.deal([str(row) for row in range(80)], 5, 0)
    before = metrics.cross_validated(ROWS, AGE, folds)
    changed = AGE.copy()
    changed[folds == 2] += 1000.0
    assert np.array_equal(metrics.cross_validated(ROWS, changed, folds)[folds == 2], before[folds == 2])


def test_ridge_is_the_textbook_one() -> None:
    x, y = ROWS[:40, :5], AGE[:40]
    found = metrics.ridge(x, y, x)
    best = min(
        (float(np.abs(_textbook(x, y, strength) - found).max()) for strength in np.logspace(-3, 3, 19)),
    )
    assert best < 1e-8


def _textbook(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    z = (x - x.mean(0)) / (x.std(0) + 1e-9)
    weights = np.linalg.solve(z.T @ z + strength * z.shape[1] * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
    return np.asarray(z @ weights + y.mean(0))


def test_indicators_name_their_levels() -> None:
    rows, levels = metrics.one_hot(["M", "F", "M"])
    assert levels == ("F", "M")
    assert rows.tolist() == [[0, 1], [1, 0], [0, 1]]


def test_what_cannot_be_probed_is_refused() -> None:
    for call in (
        lambda: metrics.deal(["a", "a"], 2, 0),
        lambda: metrics.deal(["a", "b"], 1, 0),
        lambda: metrics.ridge(ROWS[:2], AGE[:2], ROWS),
        lambda: metrics.ridge(ROWS, AGE, ROWS[:, :3]),
        lambda: metrics.ridge(np.full((4, 2), math.nan), AGE[:4], ROWS[:, :2]),
    ):
        with pytest.raises(DataRefused):
            call()
