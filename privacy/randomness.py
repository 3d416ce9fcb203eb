"""Two kinds of randomness, two types, so that the wrong one cannot be passed by accident.

`SecretNoise` comes from the operating system's generator and cannot be seeded: what it draws for a release can never be
replayed, by us or by anyone. `ReplayableNoise` comes from a seed and is for tests and non-private rehearsals; an event
made with it carries `replayable=True`, which the accountant prices at infinity.
"""

from __future__ import annotations

import math
import os
from typing import Final

import numpy as np
import torch
from torch import Tensor

_MANTISSA_BITS: Final = 53                                   # of a float64
_ULP: Final = 2.0**-_MANTISSA_BITS


class SecretNoise:
    """Independent draws from `os.urandom`, through Box-Muller in float64.

    Guarantee: draws are unpredictable to anyone who does not control the operating system's generator, and no state is
    kept that could be checkpointed or replayed. Not covered: attacks on the least significant bits of floating-point
    noise (Mironov, CCS 2012); values are rounded from float64 to float32, which narrows but does not close that channel.
    """

    replayable: Final = False

    def normal(self, count: int) -> Tensor:
        """(count,) float64 standard normal draws."""
        pairs = (count + 1) // 2
        uniform = self.uniform(2 * pairs)
        radius = (-2 * uniform[:pairs].log()).sqrt()
        angle = 2 * math.pi * uniform[pairs:]
        return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]

    def uniform(self, count: int) -> Tensor:
        """(count,) float64 draws from the open interval (0, 1); never 0, so that its logarithm exists."""
        words = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(64 - _MANTISSA_BITS)
        return torch.from_numpy((words.astype(np.float64) + 0.5) * _ULP).clamp_(max=1 - _ULP)


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
