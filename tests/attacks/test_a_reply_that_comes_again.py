"""A reply is recorded and sent again: in the next round, in another stage, under another site's name, or twice at once."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from server.coordinator import Coordinator
from tests.server.studies import begun, header, reply


def closed(run: Coordinator) -> np.ndarray:
    run.close_round()
    return run.state.values


def test_last_round_s_reply_is_refused_in_this_one() -> None:
    run = begun()
    recorded = header(run, "north")
    for site in ("north", "east", "south"):
        reply(run, site)
    closed(run)
    with pytest.raises(ReplyRefused, match="late or stale"):
        run.accept("north", recorded, np.ones(3, np.float32))
    assert "north" not in run.replies


@pytest.mark.parametrize("change", [{"round": 2}, {"round": 0}, {"stage": "generator"}, {"plan": "0" * 64},
                                    {"start": "0" * 64}, {"site": "east"}, {"round": "1"}, {"start": None}])  # fmt: skip
def test_a_reply_for_another_round_stage_plan_start_or_site_is_refused(change: dict[str, object]) -> None:
    run = begun()
    with pytest.raises(ReplyRefused):
        run.accept("north", header(run, "north", **change), np.ones(3, np.float32))
    assert "north" in run.refused


def test_the_second_reply_of_a_round_changes_nothing() -> None:
    once, twice = begun(), begun()
    for run in (once, twice):
        for site in ("north", "east"):
            reply(run, site, 1.0)
    with pytest.raises(ReplyRefused, match="second reply"):
        twice.accept("north", header(twice, "north"), np.full(3, 100.0, np.float32))
    assert np.array_equal(closed(once), closed(twice))


def test_a_stranger_s_reply_is_dropped_and_takes_nothing_from_the_sites() -> None:
    run = begun()
    reply(run, "north")
    with pytest.raises(ReplyRefused, match="not a site of the plan"):
        run.accept("west", header(run, "west"), np.ones(3, np.float32))
    assert set(run.replies) == {"north"}
    assert run.refused == {}
