"""A mean that no site can poison with what is not a number, and whose weights nobody measures."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import ReplyRefused
from braing3n_core.plan import Aggregate
from server.aggregate import LARGEST, Mean, Ranked, aggregator, checked

SITES = ("a", "b", "c", "d")
numbers = st.floats(-LARGEST, LARGEST, width=32)
updates = st.dictionaries(st.sampled_from(SITES), st.lists(numbers, min_size=3, max_size=3), min_size=1)
sizes = st.fixed_dictionaries({site: st.integers(1, 100_000) for site in SITES})


def arrays(lists: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {site: np.array(values, np.float32) for site, values in lists.items()}


def weighted_mean(sent: dict[str, np.ndarray], weights: dict[str, int]) -> np.ndarray:
    mean = Mean(len(next(iter(sent.values()), [])))
    for site, values in sent.items():
        mean.add(values, weights[site])
    return mean.result()


@given(updates, sizes)
def test_the_mean_never_leaves_the_range_of_what_was_sent(lists: dict[str, list[float]], weights: dict[str, int]) -> None:
    sent = arrays(lists)
    mean = weighted_mean(sent, weights)
    stacked = np.stack(list(sent.values()))
    slack = 1e-6 * np.abs(stacked).max(0) + 1e-18
    assert mean.dtype == np.float32
    assert (mean >= stacked.min(0) - slack).all()
    assert (mean <= stacked.max(0) + slack).all()


@given(updates, sizes)
def test_the_order_in_which_sites_reply_never_matters(lists: dict[str, list[float]], weights: dict[str, int]) -> None:
    sent = arrays(lists)
    backwards = dict(reversed(sent.items()))
    assert np.array_equal(weighted_mean(sent, weights), weighted_mean(backwards, weights))


def test_weights_are_the_declared_sizes_of_those_who_replied() -> None:
    sent = arrays({"a": [1.0], "b": [4.0]})
    assert weighted_mean(sent, {"a": 20, "b": 10, "c": 999}) == pytest.approx([2.0])


def test_no_reply_is_no_mean() -> None:
    with pytest.raises(ReplyRefused, match="no site replied"):
        weighted_mean({}, {"a": 1})


@pytest.mark.parametrize(
    "values",
    [
        None,
        [1.0, 2.0],
        np.ones(3, np.float32),
        np.ones((2, 1), np.float32),
        np.ones(2, np.float64),
        np.ones(2, np.int32),
        np.array([1.0, math.nan], np.float32),
        np.array([math.inf, 1.0], np.float32),
        np.array([1.0, -3e38], np.float32),
    ],
    ids=["None", "list", "long", "2-D", "float64", "int", "NaN", "inf", "huge"],
)
def test_what_is_not_a_finite_update_of_the_right_length_is_refused_by_the_site_s_name(values: object) -> None:
    with pytest.raises(ReplyRefused, match=r"^north sent .*; the round goes on|^north sent no array"):
        checked("north", values, 2)


@given(updates, sizes)
def test_the_mean_is_the_exact_one_up_to_float32(lists: dict[str, list[float]], weights: dict[str, int]) -> None:
    total = sum(weights[site] for site in lists)
    exact = [sum(Fraction(float(np.float32(lists[site][n]))) * weights[site] for site in lists) / total for n in range(3)]
    assert weighted_mean(arrays(lists), weights) == pytest.approx([float(one) for one in exact], rel=1e-6, abs=1e-17)


@given(updates)
def test_no_minority_moves_a_number_out_of_the_honest_range(lists: dict[str, list[float]]) -> None:
    honest = list(arrays(lists).values())
    low, high = np.min(honest, 0), np.max(honest, 0)
    slack = 1e-6 * np.abs(honest).max(0)
    liars = len(honest) - 1
    for lie in (LARGEST, -LARGEST, 0.0):
        for ranked in (Ranked(None), Ranked(liars)) if liars else (Ranked(None),):
            for values in [*honest, *[np.full(3, lie, np.float32)] * liars]:
                ranked.add(values, 1)
            if liars and len(honest) + liars <= 2 * liars:
                continue
            result = ranked.result()
            assert (result >= low - slack).all()
            assert (result <= high + slack).all()


def test_the_median_of_an_even_number_is_the_middle_of_the_two() -> None:
    ranked = Ranked(None)
    for value in (1.0, 2.0, 4.0, 1000.0):
        ranked.add(np.array([value], np.float32), 1)
    assert ranked.result() == pytest.approx([3.0])


def test_trimming_needs_somebody_left() -> None:
    ranked = Ranked(1)
    ranked.add(np.ones(2, np.float32), 1)
    ranked.add(np.ones(2, np.float32), 1)
    with pytest.raises(ReplyRefused, match="wait for more sites"):
        ranked.result()


def test_memory_of_the_mean_does_not_grow_with_the_sites() -> None:
    length = 200_000
    peaks = []
    for count in (3, 30):
        tracemalloc.start()
        mean = Mean(length)
        for site in range(count):
            mean.add(np.full(length, site, np.float32), 10)
        mean.result()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= peaks[0] * 1.05
    assert peaks[1] <= 16 * length * 4                       # in copies of a float32 model


def test_left_out_it_is_the_weighted_mean() -> None:
    assert isinstance(aggregator(None, 3), Mean)
    assert isinstance(aggregator(Aggregate(), 3), Mean)
    assert isinstance(aggregator(Aggregate(rule="median"), 3), Ranked)
