"""The server stands between the hospitals: it swaps keys, tells stories, replays, asks again, for one hospital's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from braing3n_core.protocol import Part, Request
from client.enrolled import KEY
from client.site import Site
from privacy.egress import Cleared
from privacy.ledger import Ledger
from privacy.masking import AgreementKey
from privacy.secure_sum import PAYLOAD_TYPE, STORY_TYPE
from privacy.shamir import join
from privacy.signing import SigningKey, sealed
from privacy.sum_words import gathered_text, names_text, shares_in, signed_text
from tests.summed import begun, sites, summed, taken, through

pytestmark = pytest.mark.slow                                # each takes rounds
PLAN = summed()
WIDE = summed(("north", "south", "east", "west", "coast"), dropped=2, colluding=0)


def charges(out: Path, name: str = "north") -> int:
    with Ledger(out / "sites" / name / "ledger.jsonl", 1e-5) as ledger:
        return len(ledger.events)


def refused(answer: Cleared) -> bool:
    return answer.header.get("code") == "sum-refused" and answer.values is None


def of(step: str, told: str, asked: Request, attempt: int = 1) -> Request:
    return replace(asked, part=Part(attempt, step, told))  # type: ignore[arg-type]  # a step


@pytest.mark.parametrize("hand", ["the server's own", "an enrolled site's"])
def test_a_masking_key_that_the_server_put_in_place_is_refused(tmp_path: Path, hand: str) -> None:
    """Man in the middle: with its own key in south's place it would read the letters and know the masks."""
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    taken(summing, here)
    mine = AgreementKey()
    said = {"site": "south", "context": summing.terms.context, "letters": mine.public.hex(), "masks": mine.public.hex()}
    key = SigningKey.generate() if hand == "the server's own" else SigningKey.load(tmp_path / "sites" / "east" / KEY)
    forged = signed_text(sealed(PAYLOAD_TYPE, json.dumps(said).encode(), [key]))
    told = gathered_text(summing.keys | {"south": forged})
    for name in ("north", "east"):
        assert refused(here[name].round(of("letters", told, summing.request)))
    assert "somebody stands between" in (tmp_path / "sites" / "north" / "site.log").read_text()
    assert charges(tmp_path) == 0


def test_a_site_s_own_key_of_another_round_is_no_key_of_this_one(tmp_path: Path) -> None:
    here, old = sites(PLAN, tmp_path), begun(PLAN, 1)
    taken(old, here)
    new = begun(PLAN, 2)
    taken(new, here)
    told = gathered_text(new.keys | {"south": old.keys["south"]})
    assert refused(here["north"].round(of("letters", told, new.request)))


def test_nobody_gives_both_shares_of_one_site(tmp_path: Path) -> None:
    """First "south arrived", then "south dropped out": the second story is never signed, and no key is given."""
    here, summing = sites(WIDE, tmp_path), begun(WIDE)
    through(summing, here, "story")
    everybody = names_text(summing.arrived)
    without = names_text(summing.arrived - {"south"})
    stories = {n: str(here[n].round(of("story", everybody, summing.request)).header["said"]) for n in here}
    for name in here:
        assert refused(here[name].round(of("story", without, summing.request)))
    for name in here:
        given = shares_in(str(here[name].round(of("shares", gathered_text(stories), summing.request)).header["said"]))
        assert given.keys == {}
        assert set(given.seeds) == set(here)


def test_helpers_told_apart_open_nothing(tmp_path: Path) -> None:
    """Each helper hears of other drop-outs; all shares together would open the sum of two sites where three must hide."""
    here, summing = sites(WIDE, tmp_path), begun(WIDE)
    through(summing, here, "story")
    gone = {"north": ("east", "west"), "south": ("west", "coast"), "east": ("west", "coast"), "west": ("east", "coast"),
            "coast": ("east", "west")}  # fmt: skip
    stories = {}
    for name in here:
        answer = here[name].round(of("story", names_text(summing.arrived - set(gone[name])), summing.request))
        stories[name] = str(answer.header["said"])
    for name in here:
        assert refused(here[name].round(of("shares", gathered_text(stories), summing.request)))


def test_a_story_that_the_server_signs_for_others_counts_nothing(tmp_path: Path) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "story")
    mine = str(here["north"].round(of("story", names_text(summing.arrived), summing.request)).header["said"])
    story = {"context": summing.terms.context, "letters": sorted(here), "arrived": sorted(here)}
    forged = {
        name: signed_text(sealed(STORY_TYPE, json.dumps({"site": name, **story}).encode(), [SigningKey.generate()]))
        for name in ("south", "east")
    }
    assert refused(here["north"].round(of("shares", gathered_text(forged | {"north": mine}), summing.request)))


def test_asking_twice_gives_the_same_numbers_and_no_second_look(tmp_path: Path) -> None:
    """Two masked vectors of one round, with other noise, other patients or other masks, would differ by what they hide."""
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "numbers")
    asked = summing.requests()["north"]
    first = here["north"].round(asked).values
    for values in (asked.values, asked.values + np.float32(0.5), asked.values * 0):
        assert np.array_equal(here["north"].round(replace(asked, values=values)).values, first)  # type: ignore[arg-type]  # sent
    other = json.loads(asked.part.told)  # type: ignore[union-attr]  # a step of a sum
    swapped = json.dumps(dict(zip(other, reversed(other.values()), strict=True)), sort_keys=True, separators=(",", ":"))
    assert refused(here["north"].round(of("numbers", swapped, asked)))
    assert charges(tmp_path) == 1


def test_another_attempt_at_the_round_is_paid_and_hides_other_numbers(tmp_path: Path) -> None:
    """The same numbers in two sums, one without a site, would give that site's numbers away by subtraction."""
    here, opened = sites(PLAN, tmp_path), []
    for attempt in (1, 2):
        total = through(begun(PLAN, attempt=attempt), here)
        assert total is not None
        opened.append(total)
    assert all(charges(tmp_path, name) == 2 for name in here)
    terms = begun(PLAN).terms
    spread = (opened[0] - opened[1]).std()
    assert spread > np.sqrt(2 * terms.noise_variance) / 2, "fresh noise on both"


def test_letters_that_were_held_back_are_no_way_in(tmp_path: Path) -> None:
    """A site must not mask for fewer others than the threshold."""
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "numbers")
    told = json.loads(summing.requests()["north"].part.told)  # type: ignore[union-attr]  # a step of a sum
    del told["south"]
    alone = json.dumps(told, sort_keys=True, separators=(",", ":"))
    assert refused(here["north"].round(of("numbers", alone, summing.request)))
    assert charges(tmp_path) == 0, "letters are opened before anything is paid"


def test_a_masked_sum_that_is_replayed_is_not_added_up(tmp_path: Path) -> None:
    """The network's crime, or a site's: yesterday's numbers in today's sum, or numbers twice in one."""
    here, old = sites(PLAN, tmp_path), begun(PLAN, 1)
    through(old, here, "numbers")
    replay = {name: answer for name, (_, answer) in taken(old, here).items()}
    new = begun(PLAN, 2)
    through(new, here, "numbers")
    with pytest.raises(ReplyRefused, match="round=1, not 2"):
        new.accept("north", replay["north"].header, replay["north"].values)
    before = old.summed.copy()
    with pytest.raises(ReplyRefused, match="kind=masked"):
        old.accept("south", replay["south"].header, replay["south"].values)
    assert not new.summed.any()
    assert np.array_equal(old.summed, before)
    assert not new.lost | old.lost, "a replay takes nothing from the site whose name is on it"


def test_the_server_alone_with_all_it_ever_hears_opens_the_whole_sum_and_no_part(tmp_path: Path) -> None:
    """Every share of a seed it can get belongs to a sum; without the pairs' masks a site's numbers stay noise over 32 bits."""
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "numbers")
    answers = taken(summing, here)
    through(summing, here)
    places = {site: place for place, site in enumerate(summing.terms.sites, start=1)}
    from privacy.masking import mask

    for name, (_, answer) in answers.items():
        seed = join({places[helper]: given.seeds[name] for helper, given in summing.shares.items()}, 32)
        bare = answer.values - mask(seed, summing.terms.size)  # type: ignore[operator]  # numbers were sent
        assert np.abs(bare.view(np.int32).astype(float)).mean() > 2**28, "hidden behind what it shares with the others"


def test_a_site_that_is_asked_as_somebody_else_says_so(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)
    other = Site("north", PLAN, tmp_path / "elsewhere", tmp_path, enrolled=here["south"].enrolled,
                 model_source=lambda plan: here["north"].model(), cohort_source=lambda *_: here["north"].cohort)  # fmt: skip
    summing = begun(PLAN)
    here["north"] = other                                    # north's name with south's key: nobody writes to it
    taken(summing, here)
    for asked_of, answer in ((n, a) for n, (_, a) in taken(summing, here).items()):
        assert refused(answer), asked_of
