"""Two kinds of randomness, two types, so that the wrong one cannot be passed by accident.

`SecretNoise` is keyed by the operating system and cannot be seeded: what it draws for a release can never be replayed, by us
or by anyone. `ReplayableNoise` comes from a seed and is for tests and non-private rehearsals; an event made with it carries
`replayable=True`, which the accountant prices at infinity.
"""

from __future__ import annotations

import math
import os
from typing import Final, NoReturn

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_BLOCK: Final = 1 << 16                                      # draws made at a time: few calls, and all stays in the cache
_ZEROS: Final = bytes(8 * _BLOCK)
_AES_BYTES: Final = 16
_TO_OPEN: Final = 1 - 2.0**-53                               # from [1, 2) to the open interval: odd multiples of 2^-53
_ROOM: Final = _AES_BYTES // 8                               # draws that fit what update_into asks for beyond its own


class SecretNoise:
    """Independent draws from an AES-256-CTR keystream (NIST SP 800-38A), through Box-Muller in float64.

    Guarantee: the key comes from `os.urandom`, one for every object and process; it is never written, copied or pickled, and a
    forked process takes a new one before its first draw. So draws are unpredictable to anyone who can neither read this
    process's memory nor break AES-256, and no two objects share a stream.

    Floating point, what is done: uniform draws are odd multiples of 2^-53, so the logarithm always exists; the sum of signal
    and noise is made in float64 and rounded to float32 once, so a released value has lost the low half of its bits. What is
    not: the values a float64 sum can take still depend on the signal (Mironov, CCS 2012), and rounding narrows that channel
    without a proof that it is closed. A draw is never further than 8.57 deviations out; a true normal is with probability
    1e-17. Not covered either: a snapshot of a running virtual machine, which copies the key.
    """

    replayable: Final = False

    def __init__(self) -> None:
        self._take_key()

    def normal(self, count: int) -> Tensor:
        """(count,) float64 standard normal draws."""
        even = count + count % 2
        out = torch.empty(even + _ROOM, dtype=torch.float64)
        for start in range(0, even, _BLOCK):
            radius, angle = self._mantissas(out[start:], min(_BLOCK, even - start)).chunk(2)
            r, a = radius.numpy(), angle.numpy()             # one memory: numpy multiplies sooner, torch knows sines better
            r -= _TO_OPEN
            radius.log_()
            r *= -2
            np.sqrt(r, out=r)
            a *= 2 * math.pi                                 # from one whole turn to two: as even as from none to one
            sine = angle.sin().numpy()
            angle.cos_()
            a *= r
            r *= sine
        return out[:count]

    def uniform(self, count: int) -> Tensor:
        """(count,) float64 draws from the open interval (0, 1); never 0, so that its logarithm exists."""
        out = torch.empty(count + _ROOM, dtype=torch.float64)
        for start in range(0, count, _BLOCK):
            self._mantissas(out[start:], min(_BLOCK, count - start)).sub_(_TO_OPEN)
        return out[:count]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse copy, deepcopy and pickle: each would be the same stream twice."""
        raise TypeError("secret noise cannot be copied or stored; make a new SecretNoise() where it is needed")

    def _mantissas(self, out: Tensor, count: int) -> Tensor:
        """The first `count` of `out`, one block at most, as 52 random bits each: multiples of 2^-52 in [1, 2).

        The stream is written where the draws will be. `out` has room for `_ROOM` more, which is not written to.
        """
        if os.getpid() != self._process:
            self._take_key()
        stream = out.numpy()
        self._cipher.update_into(memoryview(_ZEROS)[: 8 * count], stream.data.cast("B"))
        words = stream[:count].view(np.uint64)
        words >>= np.uint64(12)
        words |= np.uint64(0x3FF << 52)
        return out[:count]

    def _take_key(self) -> None:
        self._process = os.getpid()
        self._cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(os.urandom(_AES_BYTES))).encryptor()


class ReplayableNoise:
    """Draws that a seed repeats exactly. For tests and non-private rehearsals; never a privacy mechanism."""

    replayable: Final = True

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, count: int) -> Tensor:
        """(count,) float64 standard normal draws, the same for the same seed and history."""
        return torch.randn(count, generator=self._generator, dtype=torch.float64)

    def uniform(self, count: int) -> Tensor:
        """(count,) float64 draws from [0, 1), the same for the same seed and history."""
        return torch.rand(count, generator=self._generator, dtype=torch.float64)


Randomness = SecretNoise | ReplayableNoise
