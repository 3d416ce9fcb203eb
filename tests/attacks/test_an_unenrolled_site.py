"""A site that nobody enrolled wants to take part: at the server's door, among its nodes, and with a reply."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from privacy.signing import SigningKey
from tests.attacks.node import IN, NOT_KNOWN, NOT_SIGNED, key_of, node
from tests.end_to_end.hospitals import Consortium
from tests.scripted_grid import scripted, sites
from tests.server.studies import begun, header, reply


@pytest.mark.slow
def test_it_does_not_get_in_nor_enrol_itself_nor_see_what_others_are_asked(served: Consortium) -> None:
    with node(served, SigningKey.generate()) as stranger, node(served, key_of(served, "north")) as north:
        assert north.joins() == IN, "the door is not closed to all"
        assert stranger.joins() == NOT_KNOWN
        assert stranger.enrols_itself() == NOT_KNOWN
        assert stranger.joins() == NOT_KNOWN
        for number in (0, 1, north.number):
            assert stranger.asks_for_requests(number) == NOT_SIGNED
            assert stranger.replies(number) == NOT_SIGNED
        assert north.asks_for_requests() == IN
        assert north.leaves() == IN


@pytest.mark.slow
def test_its_own_node_tells_it_so_and_nothing_leaves_it(served: Consortium) -> None:
    served.hospital("stranger", served.place / "data", 8)
    served.join("stranger")
    served.until("stranger", "not joined", 300)
    served.running["stranger"].send_signal(signal.SIGTERM)
    assert served.ended("stranger") == 130
    assert "joined; requests" not in served.log("stranger").read_text()
    assert not (served.site("stranger") / "audit.jsonl").exists()


def test_a_node_with_a_key_that_nobody_enrolled_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = scripted(monkeypatch)
    grid.nodes[3] = (SigningKey.generate().public.pem, "a")
    asking = sites(grid).ready()
    next(asking)
    assert {node for _, node in grid.sent} == {1, 2}


def test_its_reply_is_dropped_without_a_trace_and_takes_nothing_from_the_sites() -> None:
    run = begun()
    reply(run, "north")
    with pytest.raises(ReplyRefused, match="not a site of the plan"):
        run.accept("west", header(run, "west"), np.ones(3, np.float32))
    run.refuse("west", "anything")
    assert set(run.replies) == {"north"}
    assert run.refused == {}
