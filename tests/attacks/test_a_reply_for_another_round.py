"""A reply names another round, stage, plan, start or site than the one that was asked, or names none."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from tests.server.studies import begun, header, reply


@pytest.mark.parametrize(
    "changes",
    [{"round": 2}, {"round": 0}, {"round": None}, {"round": "1"}, {"stage": "generator"}, {"plan": "0" * 64},
     {"start": "0" * 64}, {"start": None}, {"site": "east"}],
    ids=["early", "late", "no round", "a word", "other stage", "other plan", "stale start", "no start", "impostor"],
)  # fmt: skip
def test_it_is_refused_by_name_and_changes_nothing(changes: dict[str, object]) -> None:
    run = begun()
    with pytest.raises(ReplyRefused, match=rf"^north replied for {next(iter(changes))}="):
        run.accept("north", header(run, "north", **changes), np.ones(3, np.float32))
    assert not run.replies
    assert "north" in run.refused


def test_one_that_names_nothing_is_refused() -> None:
    run = begun()
    with pytest.raises(ReplyRefused):
        run.accept("north", {}, np.ones(3, np.float32))
    assert not run.replies


def test_the_round_closes_without_it_and_with_the_others() -> None:
    run = begun()
    with pytest.raises(ReplyRefused):
        run.accept("south", header(run, "south", round=2), np.full(3, 100.0, np.float32))
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    report = run.close_round()
    assert (report.replied, list(report.refused)) == (("east", "north"), ["south"])
    assert run.state.values == pytest.approx([4.0] * 3)
