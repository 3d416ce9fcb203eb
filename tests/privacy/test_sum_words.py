"""Words of a secure sum have one spelling, and room for nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import SumRefused
from privacy.secure_sum import STORY_TYPE, Revealed, Summand, Terms
from privacy.shamir import PRIME
from privacy.signing import SigningKey, sealed
from privacy.sum_words import (
    gathered_in,
    gathered_text,
    keys_in,
    letters_in,
    letters_text,
    names_in,
    names_text,
    shares_in,
    shares_text,
    signed_text,
    story_in,
)

KEY = SigningKey.generate()
AGREED = Terms(("site-a", "site-b"), "plan/decoder/1/1", 4, 1.0, 2.0**14, 1e8, 100, 0, 0)
KEYS = Summand("site-a", AGREED, {"site-a": KEY.public, "site-b": KEY.public}).advertise(KEY)
STORY = sealed(
    STORY_TYPE,
    json.dumps({"site": "site-a", "context": "c", "letters": ["site-a"], "arrived": ["site-a"]}).encode(),
    [KEY],
)
LETTER = os.urandom(160)
TEXTS: list[tuple[Callable[[str], object], str]] = [
    (keys_in, signed_text(KEYS)),
    (story_in, signed_text(STORY)),
    (letters_in, letters_text({"site-b": LETTER})),
    (shares_in, shares_text(Revealed({"site-a": 5}, {"site-b": PRIME - 1}))),
    (names_in, names_text(["site-b", "site-a"])),
]
names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
shares = st.dictionaries(names, st.integers(0, PRIME - 1), max_size=4)


@pytest.mark.slow
@given(seeds=shares, keys=shares)
def test_shares_come_back_as_they_were(seeds: dict[str, int], keys: dict[str, int]) -> None:
    assert shares_in(shares_text(Revealed(seeds, keys))) == Revealed(seeds, keys)


@pytest.mark.slow
@given(letters=st.dictionaries(names, st.binary(min_size=160, max_size=160), max_size=4))
def test_letters_and_names_come_back_as_they_were(letters: dict[str, bytes]) -> None:
    assert letters_in(letters_text(letters)) == letters
    assert names_in(names_text(letters)) == tuple(sorted(letters))


def test_signed_words_come_back_as_they_were() -> None:
    assert keys_in(signed_text(KEYS)) == KEYS
    assert story_in(signed_text(STORY)) == STORY
    assert gathered_in(gathered_text({"site-a": signed_text(KEYS)}), keys_in) == {"site-a": KEYS}


@pytest.mark.parametrize(("read", "text"), TEXTS)
def test_a_text_with_anything_beside_is_refused(read: Callable[[str], object], text: str) -> None:
    value = json.loads(text)
    more = value | {"age": "sub-0042"} if isinstance(value, dict) else [*value, "sub 0042"]
    longer = json.dumps(more, sort_keys=True, separators=(",", ":"))
    for spoilt in (f" {text}", text + "\n", json.dumps(value, indent=1), longer):
        with pytest.raises(SumRefused):
            read(spoilt)


@pytest.mark.parametrize(("read", "text"), TEXTS)
@pytest.mark.parametrize("other", ["", "null", "3", "[]x", "[" * 5000, '{"site-a":null}', '{"site-a":"zz"}', '[1]'])
def test_what_is_no_such_word_is_refused(read: Callable[[str], object], text: str, other: str) -> None:
    with pytest.raises(SumRefused):
        read(other)


@pytest.mark.parametrize("field", ["site", "context", "letters", "masks"])
def test_keys_with_a_field_more_or_other_in_what_was_signed_are_refused(field: str) -> None:
    said = {"site": "site-a", "context": "c", "letters": "0" * 64, "masks": "1" * 64}
    fine = sealed(str(KEYS["payloadType"]), json.dumps(said).encode(), [KEY])
    assert keys_in(signed_text(fine)) == fine
    for wrong in ({**said, field: 5}, {**said, "more": "x"}, {key: value for key, value in said.items() if key != field}):
        if field == "context" and wrong.get(field) == 5:
            continue                                         # a context is any text; whose it is, its readers check
        with pytest.raises(SumRefused):
            keys_in(signed_text(sealed(str(KEYS["payloadType"]), json.dumps(wrong).encode(), [KEY])))


def test_shares_beyond_the_prime_and_letters_of_another_length_are_refused() -> None:
    with pytest.raises(SumRefused):
        shares_in(shares_text(Revealed({"site-a": PRIME}, {})))
    for letter in (LETTER[:-1], LETTER + b"\0", b""):
        with pytest.raises(SumRefused):
            letters_in(letters_text({"site-b": letter}))
