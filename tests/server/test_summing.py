"""The server's side of a secure sum: who may speak when, what it keeps, and that it holds one sum, not each site's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from server.summing import Summing
from tests.summed import begun, sites, summed, taken, through

pytestmark = pytest.mark.slow                                # each takes rounds
PLAN = summed()
FIVE = summed(("north", "south", "east", "west", "coast"), dropped=2, colluding=0)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda plan: sites(plan, tmp_path_factory.mktemp("sites"))


@pytest.mark.parametrize("silent_at", ["keys", "letters", "numbers", "story", "shares"])
def test_the_sum_opens_when_as_many_as_may_drop_out_fall_silent_at_any_step(here: Any, silent_at: str) -> None:
    played, summing = here(FIVE), begun(FIVE)
    while not summing.done:
        taken(summing, played, silent=("west", "coast") if summing.step == silent_at else ())
    gone = {"west", "coast"} if silent_at in ("keys", "letters", "numbers") else set[str]()
    assert summing.arrived == set(played) - gone
    noise = np.sqrt(summing.terms.share_variance * len(summing.arrived))
    assert 0.5 * noise < summing.total().std() < 2 * noise


@pytest.mark.parametrize("silent_at", ["keys", "letters", "numbers", "story", "shares"])
def test_one_more_and_it_does_not_close(here: Any, silent_at: str) -> None:
    played, summing = here(PLAN), begun(PLAN)
    through(summing, played, silent_at)
    taken(summing, played, silent=("north",))
    assert summing.step == silent_at
    assert not summing.enough
    assert not summing.hopeless, "it may still speak"
    with pytest.raises(ReplyRefused, match="2 of 3 took step"):
        summing.close_step()
    summing.lost.add("north")
    assert summing.hopeless


def test_what_was_recorded_goes_on_as_if_nothing_had_happened(here: Any) -> None:
    played, summing = here(PLAN), begun(PLAN)
    for step in ("numbers", "story", "shares"):
        through(summing, played, step)
        summing = Summing.resumed(summing.terms, summing.request, summing.record(), summing.summed.copy())
        assert summing.step == step
    assert through(summing, played) is not None
    again = begun(PLAN)
    assert np.array_equal(through(again, played), summing.total())  # type: ignore[arg-type]  # the same words open the same sum


@pytest.mark.parametrize(
    "wrong", [{"plan": "x"}, {"round": 2}, {"attempt": 2}, {"site": "south"}, {"kind": "update"}, {"start": "x"}]
)
def test_a_word_for_another_sum_is_dropped_and_costs_the_site_nothing(here: Any, wrong: dict[str, Any]) -> None:
    played, summing = here(PLAN), begun(PLAN)
    through(summing, played, "numbers")
    answer = played["north"].round(summing.requests()["north"])
    with pytest.raises(ReplyRefused, match="late or stale"):
        summing.accept("north", {**answer.header, **wrong}, answer.values)
    summing.accept("north", answer.header, answer.values)
    assert summing.arrived == {"north"}


@pytest.mark.parametrize("values", [None, np.zeros(3, np.uint32), np.zeros(32, np.float32), [1, 2]])
def test_numbers_that_are_none_put_a_site_out_of_the_sum(here: Any, values: object) -> None:
    played, summing = here(PLAN), begun(PLAN)
    through(summing, played, "numbers")
    answer = played["north"].round(summing.requests()["north"])
    with pytest.raises(ReplyRefused, match="no uint32"):
        summing.accept("north", answer.header, values)
    assert summing.lost == {"north"}
    assert not summing.summed.any()


@pytest.mark.parametrize(
    ("step", "said"), [("keys", "{}"), ("letters", "{}"), ("story", "{}"), ("shares", '{"keys":{},"seeds":{}}')]
)
def test_words_that_say_something_else_put_a_site_out_of_the_sum(here: Any, step: str, said: str) -> None:
    played, summing = here(PLAN), begun(PLAN)
    through(summing, played, step)
    answer = played["north"].round(summing.requests()["north"])
    with pytest.raises(ReplyRefused):
        summing.accept("north", {**answer.header, "said": said}, None)
    assert summing.lost == {"north"}


def test_values_travel_with_the_numbers_alone_and_it_holds_one_sum(here: Any) -> None:
    played, summing = here(FIVE), begun(FIVE)
    while not summing.done:
        asked = summing.requests()
        assert all(len(request.values) == (32 if summing.step == "numbers" else 0) for request in asked.values())
        taken(summing, played)
    assert summing.summed.shape == (summing.terms.size,)
