"""Shamir's secret sharing: any `threshold` of the shares give the secret, fewer say nothing about it (CACM 22, 1979)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from privacy.errors import MechanismRefused, SumRefused

PRIME: Final = 2**521 - 1                                    # a Mersenne prime, larger than any 64-byte secret
SHARE_BYTES: Final = 66


def split(secret: bytes, holders: int, threshold: int) -> list[int]:
    """Shares for holders 1, 2, ... of a secret of up to 64 bytes, from the operating system's randomness."""
    if not (len(secret) <= 64 and 1 <= threshold <= holders):
        raise MechanismRefused(f"cannot share {len(secret)} bytes among {holders} with threshold {threshold}; up to 64 bytes")
    polynomial = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_value(polynomial, place) for place in range(1, holders + 1)]


def join(shares: Mapping[int, int], length: int) -> bytes:
    """The secret of `length` bytes from shares by holder. Law: any `threshold` of split(s, n, threshold) give s.

    Fewer shares, or one that was changed, give something else or are refused as not a secret of this length.
    """
    total = 0
    for place, share in shares.items():
        weight = share
        for other in shares:
            if other != place:
                weight = weight * other * pow(other - place, -1, PRIME) % PRIME
        total = (total + weight) % PRIME
    try:
        return total.to_bytes(length)
    except OverflowError as error:
        raise SumRefused("the shares do not fit together: one is missing or was changed; drop the round") from error


def _value(polynomial: list[int], place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value
