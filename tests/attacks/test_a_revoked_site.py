"""A hospital was removed from the consortium, or got a new key, and goes on with the one it had."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from privacy.signing import SigningKey
from server import plans
from server.consortium import Consortium as Folder
from server.consortium import Roster
from tests.attacks.node import IN, NOT_KNOWN, NOT_SIGNED, key_of, node
from tests.end_to_end.hospitals import Consortium, done, wait


@pytest.mark.slow
def test_it_is_thrown_out_while_the_server_runs_and_the_others_stay(served: Consortium) -> None:
    served.hospital("west", served.place / "data", 8)
    served.enrol("west")
    served.until("serve", "west may join")
    with node(served, key_of(served, "west")) as west, node(served, key_of(served, "north")) as north:
        assert (west.joins(), north.joins()) == (IN, IN)
        assert west.leaves() == IN
        served.join("west")                                  # its own node, which asks as long as it may
        served.until("west", "joined; requests", 300)
        done("braing3n-admin", "remove", "west", "--consortium", served.folder)
        served.until("serve", "west may not join any more")
        assert west.asks_for_requests() == NOT_SIGNED, "its number is nobody's any more"
        assert west.replies() == NOT_SIGNED
        assert west.joins() == NOT_KNOWN
        assert north.asks_for_requests() == IN
        assert north.leaves() == IN
    wait(lambda: "not joined" in served.log("west").read_text(), "west was not thrown out", 200, served.said)


def test_a_plan_that_was_signed_with_its_key_is_not_started_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "installed_digest", lambda: "b" * 64)
    consortium, key = Folder.make(tmp_path / "consortium"), SigningKey.generate().public
    consortium.write_roster(Roster(keys={}).enrolled("north", key))
    plans.new(tmp_path / "plan.toml", "ageing", [("north", 40)])
    agreement, path = plans.sign(consortium, tmp_path / "plan.toml")
    assert plans.signed(consortium, path) == agreement
    without = consortium.roster().without("north")
    for roster in (without, without.enrolled("north", SigningKey.generate().public)):
        consortium.write_roster(roster)
        with pytest.raises(PlanRefused, match="north left the consortium or has a new key"):
            plans.signed(consortium, path)
    consortium.write_roster(without.enrolled("north", key))
    assert plans.signed(consortium, path) == agreement, "it was its key that was missed"
