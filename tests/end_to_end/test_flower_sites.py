"""Which node may speak for which hospital, and when a request is sent again, on a scripted grid of Flower."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from braing3n_core.protocol import Part, Request
from privacy.signing import SigningKey

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)      # Flower's and Click's own
    from flwr.app import ConfigRecord, Error, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from client.messages import request_of
    from server import app as module
    from server.app import FlowerSites

KEYS = {name: SigningKey.generate().public.pem for name in ("north", "south")}
ENROLLED = {name: pem.decode() for name, pem in KEYS.items()}
REQUEST = Request("p" * 64, "decoder", 1, np.zeros(3, np.float32))


class Grid:
    """Nodes by number, each with a key and a time since when it is there; replies wait until they are pulled."""

    def __init__(self) -> None:
        self.nodes: dict[int, tuple[bytes, str]] = {}
        self.sent: list[tuple[str, int]] = []                # message number, node
        self.waiting: dict[str, Any] = {}
        self._numbers = itertools.count()

    def get_nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(node_id=n, public_key=key, last_activated_at=at) for n, (key, at) in self.nodes.items()]

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        numbers = []
        for message in messages:
            number = f"m{next(self._numbers)}"
            self.sent.append((number, message.metadata.dst_node_id))
            numbers.append(number)
        return numbers

    def pull_messages(self, numbers: Iterable[str]) -> list[Any]:
        return [self.waiting.pop(number) for number in list(numbers) if number in self.waiting]

    def reply(self, number: str, node: int, header: dict[str, Any] | None) -> None:
        """A node's answer; None: Flower's own word that it failed."""
        content = None if header is None else RecordDict({f"{header['site']}.header": ConfigRecord(header)})
        metadata = SimpleNamespace(reply_to_message_id=number, src_node_id=node)
        self.waiting[number] = SimpleNamespace(
            metadata=metadata, content=content, error=Error(0), has_content=lambda: content is not None
        )


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    made = Grid()
    made.nodes = {1: (KEYS["north"], "a"), 2: (KEYS["south"], "a")}
    return made


def sites(grid: Grid) -> FlowerSites:
    return FlowerSites(grid, "p" * 64, ENROLLED)


def update(site: str) -> dict[str, Any]:
    return {"kind": "update", "site": site}


def test_a_node_answers_for_the_hospital_whose_key_it_holds_and_no_other(grid: Grid) -> None:
    asking = sites(grid).ready()
    assert next(asking) is None
    (first, _), (second, _) = grid.sent
    grid.reply(first, 1, {"kind": "ready", "site": "south"})
    grid.reply(second, 2, {"kind": "ready", "site": "south"})
    assert next(asking) == ("south", {"kind": "ready", "site": "south"}, None)
    assert next(asking) is None


def test_a_node_with_a_key_that_nobody_enrolled_is_not_even_asked(grid: Grid) -> None:
    grid.nodes[3] = (SigningKey.generate().public.pem, "a")
    asking = sites(grid).ready()
    next(asking)
    assert {node for _, node in grid.sent} == {1, 2}


def test_an_update_in_another_hospital_s_name_is_dropped(grid: Grid) -> None:
    asking = sites(grid).ask(dict.fromkeys(["north"], REQUEST))
    next(asking)
    ((number, _),) = grid.sent
    grid.reply(number, 1, update("south"))
    assert next(asking) is None


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
