"""When a request is sent again, and to which node, on a scripted grid of Flower."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from braing3n_core.protocol import Part
from privacy.egress import End
from tests.scripted_grid import KEYS, REQUEST, Grid, scripted, sites, update

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)      # Flower's and Click's own
    from client.messages import request_of
    from server.app import FlowerSites


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Grid:
    return scripted(monkeypatch)


def test_a_node_that_fails_is_asked_five_times_and_then_refused(grid: Grid) -> None:
    asking = sites(grid).ask(dict.fromkeys(["north"], REQUEST))
    for _ in range(5):
        assert next(asking) is None
        grid.reply(grid.sent[-1][0], 1, None)
    assert next(asking) == ("north", {"kind": "refusal", "code": "node-failed"}, None)
    assert len(grid.sent) == 5


def test_a_node_that_began_anew_gets_the_lost_request_again_without_counting_as_failed(grid: Grid) -> None:
    asking = sites(grid).ask(dict.fromkeys(["north", "south"], REQUEST))
    next(asking)
    for at in "bcdef":
        grid.nodes[1] = (KEYS["north"], at)
        next(asking)
    assert [node for _, node in grid.sent].count(1) == 6
    grid.reply(grid.sent[-1][0], 1, update("north"))
    assert next(asking) == ("north", update("north"), None)


def test_a_hospital_that_comes_late_is_asked_when_it_is_there(grid: Grid) -> None:
    late = grid.nodes.pop(2)
    asking = sites(grid).ask(dict.fromkeys(["north", "south"], REQUEST))
    next(asking)
    assert [node for _, node in grid.sent] == [1]
    grid.nodes[2] = late
    next(asking)
    assert [node for _, node in grid.sent] == [1, 2]


def test_a_hospital_that_answered_is_left_alone_even_if_its_node_begins_anew(grid: Grid) -> None:
    asking = sites(grid).ask(dict.fromkeys(["north"], REQUEST))
    next(asking)
    grid.reply(grid.sent[0][0], 1, update("north"))
    assert next(asking) is not None
    grid.nodes[1] = (KEYS["north"], "z")
    next(asking)
    assert len(grid.sent) == 1


def test_a_failed_roll_call_is_repeated_a_few_times(grid: Grid) -> None:
    grid.nodes.pop(2)
    asking = sites(grid).ready()
    for _ in range(12):
        next(asking)
        grid.reply(grid.sent[-1][0], 1, None)
    assert 5 <= len(grid.sent) <= 6


def test_in_simulation_a_node_plays_the_sites_it_names_and_is_asked_again_when_it_fails(grid: Grid) -> None:
    simulated = FlowerSites(grid, "p" * 64)
    asking = simulated.ready()
    next(asking)
    grid.reply(grid.sent[0][0], 1, {"kind": "ready", "site": "north"})
    assert next(asking) == ("north", {"kind": "ready", "site": "north"}, None)
    grid.reply(grid.sent[1][0], 2, {"kind": "ready", "site": "north"})
    assert [next(asking), next(asking)] == [None, None]
    rounds = simulated.ask(dict.fromkeys(["north", "south"], REQUEST))
    next(rounds)
    assert [node for _, node in grid.sent[2:]] == [1]        # south said nothing yet; who spoke first for north keeps it
    for _ in range(4):
        grid.reply(grid.sent[-1][0], 1, None)
        assert next(rounds) is None
    grid.reply(grid.sent[-1][0], 1, None)
    assert next(rounds) == ("north", {"kind": "refusal", "code": "node-failed"}, None)
    next(rounds)
    assert len(grid.sent) == 7


def test_a_step_of_a_secure_sum_is_asked_of_each_site_in_its_own_words(grid: Grid) -> None:
    pushed: list[Any] = []
    plain = grid.push_messages
    grid.push_messages = lambda messages: plain(pushed.extend(kept := list(messages)) or kept)  # type: ignore[method-assign]
    requests = {name: replace(REQUEST, part=Part(2, "letters", f"for {name}")) for name in ("north", "south")}
    next(sites(grid).ask(requests))
    heard = {message.content["request"]["site"]: request_of(message) for message in pushed}
    assert {name: request.part for name, request in heard.items()} == {name: asked.part for name, asked in requests.items()}
    assert all(np.array_equal(request.values, REQUEST.values) for request in heard.values())


@pytest.mark.parametrize("end", ["before", "after"])
def test_how_well_the_model_fits_is_asked_as_it_is_meant(grid: Grid, end: End) -> None:
    pushed: list[Any] = []
    plain = grid.push_messages
    grid.push_messages = lambda messages: plain(pushed.extend(kept := list(messages)) or kept)  # type: ignore[method-assign]
    next(sites(grid).ask({"north": replace(REQUEST, end=end)}))
    (heard,) = (request_of(message) for message in pushed)
    assert (heard.end, heard.stage, heard.part) == (end, REQUEST.stage, None)
    pushed[0].content["request"]["end"] = "in between"
    with pytest.raises(ReplyRefused, match="at no end of a stage"):
        request_of(pushed[0])
