"""Any threshold of shares gives the secret, and fewer say nothing about it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy import shamir
from privacy.errors import MechanismRefused


@given(secret=st.binary(min_size=32, max_size=32), holders=st.integers(1, 10), data=st.data())
def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not(secret: bytes, holders: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = dict(enumerate(shamir.split(secret, holders, threshold), start=1))
    some = data.draw(st.permutations(sorted(shares)))
    assert shamir.join({place: shares[place] for place in some[:threshold]}, 32) == secret
    assert shamir.join(shares, 32) == secret
    if threshold > 1:
        try:
            guessed = shamir.join({place: shares[place] for place in some[: threshold - 1]}, 32)
        except MechanismRefused:
            return
        assert guessed != secret


def test_fewer_shares_fit_every_secret_equally_well() -> None:
    """One share of a threshold of two: for each possible secret there is a line through both."""
    share = shamir.split(b"\x07", 3, 2)[0]
    for secret, place in itertools.product(range(4), (2, 3)):
        other = (secret + place * (share - secret)) % shamir.PRIME
        assert shamir.join({1: share, place: other}, 1) == bytes([secret])


@pytest.mark.parametrize(("length", "holders", "threshold"), [(65, 3, 2), (32, 3, 4), (32, 3, 0)])
def test_a_sharing_that_cannot_be_undone_is_refused(length: int, holders: int, threshold: int) -> None:
    with pytest.raises(MechanismRefused):
        shamir.split(bytes(length), holders, threshold)
