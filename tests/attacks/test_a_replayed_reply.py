"""A reply is recorded and sent again: in the same round, in the next one, or when the run is over."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from server.coordinator import Coordinator
from tests.server.studies import begun, header, reply

SITES = ("north", "east", "south")


def closed(run: Coordinator) -> np.ndarray:
    run.close_round()
    return run.state.values


def test_the_second_reply_of_a_round_is_refused_and_changes_nothing() -> None:
    once, twice = begun(), begun()
    for run in (once, twice):
        for site in ("north", "east"):
            reply(run, site, 1.0)
    for value in (1.0, 100.0):                               # the recorded bytes, or others under their header
        with pytest.raises(ReplyRefused, match="second reply"):
            twice.accept("north", header(twice, "north"), np.full(3, value, np.float32))
    twice.refuse("north", "spoofed")
    assert "north" in twice.replies, "what it rightly sent is not taken from it"
    assert twice.refused == {}
    assert np.array_equal(closed(once), closed(twice))


@pytest.mark.parametrize("site", SITES)
def test_last_round_s_reply_is_refused_in_this_one(site: str) -> None:
    run = begun()
    recorded = header(run, site)
    for name in SITES:
        reply(run, name)
    before = closed(run)
    with pytest.raises(ReplyRefused, match="late or stale"):
        run.accept(site, recorded, np.ones(3, np.float32))
    assert site not in run.replies
    assert np.array_equal(run.state.values, before)


def test_last_round_s_reply_is_refused_even_if_it_says_it_is_for_this_one() -> None:
    """The values it started from give it away: they were other ones a round ago."""
    run = begun()
    recorded = header(run, "north")
    for name in SITES:
        reply(run, name)
    closed(run)
    with pytest.raises(ReplyRefused, match=r"^north replied for start="):
        run.accept("north", {**recorded, "round": 2}, np.ones(3, np.float32))
    assert "north" not in run.replies


def test_nothing_is_accepted_after_the_end() -> None:
    run = begun()
    while not run.done:
        recorded = header(run, "north")
        for name in SITES:
            reply(run, name)
        closed(run)
    before = run.state.values.copy()
    with pytest.raises(ReplyRefused, match="after the last round"):
        run.accept("north", recorded, np.ones(5, np.float32))
    assert np.array_equal(run.state.values, before)
