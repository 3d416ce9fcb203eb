"""Somebody sends more than any message holds, to fill the server's memory, or more numbers than were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from server.fleet_door import LARGEST_BODY
from tests.attacks.through_the_door import through
from tests.client.studies import charges, request, site, study
from tests.server.studies import begun, header, reply

PIECE = bytes(1 << 20)


def test_a_message_larger_than_any_is_cut_off_at_the_door() -> None:
    assert through("POST", "/v1/fleet/push-object", [bytes(LARGEST_BODY + 1)]) == (413, [])


def test_the_largest_that_there_is_goes_through() -> None:
    status, seen = through("POST", "/v1/fleet/push-object", [PIECE] * (LARGEST_BODY // len(PIECE)))
    assert (status, len(seen)) == (200, 1)
    assert len(seen[0].content) == LARGEST_BODY


def test_a_message_without_an_end_is_not_waited_for() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while taken < 4 * LARGEST_BODY // len(PIECE):        # an end for a door that would read on
            taken += 1
            yield PIECE

    assert through("POST", "/v1/fleet/push-object", endless()) == (413, [])
    assert taken == LARGEST_BODY // len(PIECE) + 1


@pytest.mark.parametrize("length", [4, 3_000_000])
def test_an_update_of_more_numbers_than_asked_for_is_refused_by_name_and_the_round_closes(length: int) -> None:
    run = begun()
    with pytest.raises(ReplyRefused, match=r"^south sent float32 of shape .*, not float32 \(3,\); the round goes on"):
        run.accept("south", header(run, "south"), np.ones(length, np.float32))
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    assert list(run.close_round().refused) == ["south"]
    assert run.state.values == pytest.approx([4.0] * 3)


def test_a_server_s_request_of_more_numbers_than_the_model_has_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    plan = study()
    asked = request(plan)
    values = np.concatenate([asked.values] * 100)
    answer = site(tmp_path).round(replace(asked, values=values))
    assert (answer.header["code"], answer.values) == ("request-refused", None)
    assert charges(tmp_path) == 0
