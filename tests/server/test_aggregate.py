"""A mean that no site can poison with what is not a number, and whose weights nobody measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import ReplyRefused
from server.aggregate import LARGEST, checked, weighted_mean

SITES = ("a", "b", "c", "d")
numbers = st.floats(-LARGEST, LARGEST, width=32)
updates = st.dictionaries(st.sampled_from(SITES), st.lists(numbers, min_size=3, max_size=3), min_size=1)
sizes = st.fixed_dictionaries({site: st.integers(1, 100_000) for site in SITES})


def arrays(lists: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {site: np.array(values, np.float32) for site, values in lists.items()}


@given(updates, sizes)
def test_the_mean_never_leaves_the_range_of_what_was_sent(lists: dict[str, list[float]], weights: dict[str, int]) -> None:
    sent = arrays(lists)
    mean = weighted_mean(sent, weights)
    stacked = np.stack(list(sent.values()))
    slack = 1e-6 * np.abs(stacked).max(0)
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
