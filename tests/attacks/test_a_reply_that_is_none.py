"""There is no reply, where Flower waits for ever for one: neither the hospital's node nor the round may hang on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import ReplyRefused
from tests.client.studies import charges
from tests.gate_messages import answer, asked, gated
from tests.scripted_grid import REQUEST, scripted, sites, update
from tests.server.studies import begun, header, reply


@pytest.mark.parametrize("returned", [None, 3, "update", {"values": [1.0]}])
def test_whatever_the_site_returns_there_is_a_reply_and_the_node_goes_on(
    tmp_path: Path, returned: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = gated(tmp_path, monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr("client.site.Site.round", lambda *_: returned)
        assert answer(one, asked(one))["code"] == "internal"
        broken.setattr("client.site.Site.ready", lambda *_: returned)
        assert answer(one, asked(one, "query.ready"))["code"] == "internal"
    with monkeypatch.context() as healthy:
        healthy.setattr("client.site.Site._cohort", None)    # there are no scans to be read
        assert answer(one, asked(one, "query.ready"))["kind"] == "ready"
    assert charges(tmp_path) == 0


def test_a_node_whose_reply_has_nothing_in_it_is_refused_and_the_others_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = scripted(monkeypatch)
    asking = sites(grid).ask(dict.fromkeys(["north", "south"], REQUEST))
    assert next(asking) is None
    (first, _), (second, _) = grid.sent
    grid.reply(first, 1, {})
    grid.reply(second, 2, update("south"))
    heard = [next(asking), next(asking)]
    assert ("north", {"kind": "refusal", "code": "empty-reply"}, None) in heard
    assert ("south", update("south"), None) in heard
    assert next(asking) is None
    assert len(grid.sent) == 2, "nobody is asked again"


@pytest.mark.parametrize("nothing", [None, [], "", 0])
def test_an_update_without_an_array_is_refused_by_name_and_the_round_closes_without_it(nothing: object) -> None:
    run = begun()
    with pytest.raises(ReplyRefused, match=r"^south sent no array"):
        run.accept("south", header(run, "south"), nothing)
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    report = run.close_round()
    assert (report.replied, list(report.refused)) == (("east", "north"), ["south"])
    assert run.state.values == pytest.approx([4.0] * 3)
