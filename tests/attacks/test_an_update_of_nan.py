"""A site sends NaN or infinity: one number of it, averaged in, and there is no model any more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from tests.server.studies import begun, header, reply

POISONS = (math.nan, math.inf, -math.inf)


def poisoned(poison: float, place: int = 1) -> np.ndarray:
    values = np.ones(3, np.float32)
    values[place] = poison
    return values


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("place", range(3))
def test_one_such_number_is_refused_by_the_site_s_name_and_the_round_closes_without_it(poison: float, place: int) -> None:
    run = begun()
    with pytest.raises(ReplyRefused, match=r"^south sent NaN or infinite numbers; the round goes on without it"):
        run.accept("south", header(run, "south"), poisoned(poison, place))
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    report = run.close_round()
    assert (report.replied, list(report.refused)) == (("east", "north"), ["south"])
    assert run.state.values == pytest.approx([4.0] * 3), "the mean of the others"


@pytest.mark.parametrize("rule", ["mean", "median"])
@pytest.mark.parametrize("poison", POISONS)
def test_no_rule_of_averaging_lets_it_in(rule: str, poison: float) -> None:
    run = begun(federation={"quorum": 2, "deadline_s": 60.0, "aggregate": {"rule": rule, "norm_bound": 1.0}})
    with pytest.raises(ReplyRefused):
        run.accept("south", header(run, "south"), poisoned(poison))
    for name in ("north", "east"):
        reply(run, name, 0.1)
    run.close_round()
    assert run.state.values == pytest.approx([0.1] * 3)


def test_a_good_reply_makes_up_for_a_bad_one() -> None:
    run = begun()
    with pytest.raises(ReplyRefused):
        run.accept("north", header(run, "north"), poisoned(math.nan))
    reply(run, "north")
    reply(run, "east")
    assert run.close_round().refused == {}


@pytest.mark.parametrize("poison", POISONS)
def test_a_secure_sum_that_opens_to_it_moves_nothing(poison: float) -> None:
    run = begun()
    before = run.state.values.copy()
    with pytest.raises(ReplyRefused, match=r"^the secure sum sent NaN or infinite numbers"):
        run.accept_sum(poisoned(poison), ["north", "east"])
    assert np.array_equal(run.state.values, before)
    assert not run.replies, "a sum that is none is nobody's reply"
