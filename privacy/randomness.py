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

_BLOCK: Final = 1 << 15                                      # draws made at a time: everything stays in the processor's cache
_ZEROS: Final = bytes(8 * _BLOCK)
_AES_BYTES: Final = 16


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
        out = torch.empty(count + count % 2, dtype=torch.float64)
        for block in out.split(_BLOCK):
            uniform, pairs = self._uniform(len(block)), len(block) // 2
            radius, angle = uniform[:pairs].log_().mul_(-2).sqrt_(), uniform[pairs:].mul_(2 * math.pi)
            torch.mul(radius, angle.cos(), out=block[:pairs])
            torch.mul(radius, angle.sin_(), out=block[pairs:])
        return out[:count]

    def uniform(self, count: int) -> Tensor:
        """(count,) float64 draws from the open interval (0, 1); never 0, so that its logarithm exists."""
        parts = [self._uniform(min(_BLOCK, count - start)) for start in range(0, count, _BLOCK)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse copy, deepcopy and pickle: each would be the same stream twice."""
        raise TypeError("secret noise cannot be copied or stored; make a new SecretNoise() where it is needed")

    def _uniform(self, count: int) -> Tensor:
        """At most one block of draws: 52 random bits as the mantissa of a number in [1, 2), less 1 - 2^-53."""
        if os.getpid() != self._process:
            self._take_key()
        stream = bytearray(8 * count + _AES_BYTES)           # update_into asks for room for a block more
        self._cipher.update_into(memoryview(_ZEROS)[: 8 * count], stream)
        words = np.frombuffer(stream, dtype=np.uint64, count=count)
        words >>= np.uint64(12)
        words |= np.uint64(0x3FF << 52)
        draws = words.view(np.float64)
        draws -= 1 - 2.0**-53
        return torch.from_numpy(draws)

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
