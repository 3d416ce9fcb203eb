"""A site speaks in another's name: it shows that one's key and signs with its own, or takes that one's number or name."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from client.join import join
from privacy.signing import SigningKey
from tests.attacks.node import IN, NOT_SIGNED, key_of, node
from tests.consortium import begun
from tests.end_to_end.hospitals import Consortium
from tests.scripted_grid import REQUEST, scripted, sites, update


@pytest.mark.slow
@pytest.mark.parametrize("holds", ["south", "no hospital"])
def test_whoever_shows_a_key_and_cannot_sign_with_it_does_not_get_in(served: Consortium, holds: str) -> None:
    own = key_of(served, "south") if holds == "south" else SigningKey.generate()
    with node(served, key_of(served, "north"), own) as impostor, node(served, key_of(served, "north")) as north:
        assert impostor.joins() == NOT_SIGNED
        assert north.joins() == IN
        assert impostor.joins() == NOT_SIGNED
        assert impostor.asks_for_requests(north.number) == NOT_SIGNED
        assert impostor.replies(north.number) == NOT_SIGNED
        assert north.leaves() == IN


@pytest.mark.slow
def test_an_enrolled_key_opens_no_other_hospital_s_requests(served: Consortium) -> None:
    with node(served, key_of(served, "south")) as south, node(served, key_of(served, "north")) as north:
        assert (north.joins(), south.joins()) == (IN, IN)
        assert south.asks_for_requests() == IN
        assert south.asks_for_requests(north.number) == NOT_SIGNED
        assert south.replies(north.number) == NOT_SIGNED
        assert (north.leaves(), south.leaves()) == (IN, IN)


def test_a_node_answers_for_the_hospital_whose_key_it_holds_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = scripted(monkeypatch)
    asking = sites(grid).ready()
    assert next(asking) is None
    (first, _), (second, _) = grid.sent
    grid.reply(first, 1, {"kind": "ready", "site": "south"})
    grid.reply(second, 2, {"kind": "ready", "site": "south"})
    assert next(asking) == ("south", {"kind": "ready", "site": "south"}, None)
    assert next(asking) is None


def test_an_update_in_another_hospital_s_name_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = scripted(monkeypatch)
    asking = sites(grid).ask(dict.fromkeys(["north"], REQUEST))
    next(asking)
    ((number, _),) = grid.sent
    grid.reply(number, 1, update("south"))
    assert next(asking) is None


def test_a_site_whose_two_keys_are_no_pair_does_not_even_try(tmp_path: Path) -> None:
    one = begun(tmp_path)
    file = one.site.folder / "site.toml"
    file.write_text(file.read_text().replace('data = "bids"', 'data = "bids"\nserver = "localhost:1"'))
    (one.site.folder / "keys" / "site.pem.pub").write_bytes(SigningKey.generate().public.pem)
    with pytest.raises(UsageError, match="are not one key"):
        join(one.site, None, print)
