"""Discrete tokens from continuous latents, and back: finite scalar quantization (Mentzer et al., arXiv 2309.15505).

Nothing is learned, so there is no codebook to train, to collapse or to make private. Each of the C channels of a token becomes
one of L digits; a token is a word of C digits. B volumes, N tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braing3n_core.errors import UsageError

# Normalised latents have unit spread on average, single axes twice that, and on scanners the prior never saw three times.
# The tanh is undone after rounding: steps are finest near zero, where most latents lie, and none is out of reach.
_SPREAD = 4.0


class FiniteScalar(nn.Module):
    """(B, N, C) latents -> the nearest latents that L digits per channel can say. No parameters, no buffers.

    Gradients pass straight through the rounding: the Jacobian is the identity, so a decoder can be trained behind it.
    Law: write(read(z)) == forward(z), and read(write(d)) == d for every digit.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if not levels >= 2:
            raise UsageError(f"levels={levels}: a digit needs at least 2 values; 15 keep a brain within 1 dB")
        self.levels = levels

    def forward(self, z: Tensor) -> Tensor:
        return z + (self.write(self.read(z)) - z).detach()

    def read(self, z: Tensor) -> Tensor:
        """(B, N, C) latents -> (B, N, C) int64 digits, 0 to L-1."""
        place = (torch.tanh(z / _SPREAD) + 1) / 2 * self.levels                                # 0 to L
        return place.floor().clamp(0, self.levels - 1).long()

    def write(self, digits: Tensor) -> Tensor:
        """(B, N, C) digits -> the latents in the middle of each digit's cell. Raises UsageError for a digit there is not."""
        if not bool(((digits >= 0) & (digits < self.levels)).all()):
            raise UsageError(f"a digit lies outside 0 to {self.levels - 1}; these tokens have {self.levels} levels")
        middle = (digits.double() + 0.5) / self.levels * 2 - 1
        return (_SPREAD * torch.atanh(middle)).float()


def edit(digits: Tensor, token: int, word: Tensor) -> Tensor:
    """A copy of (B, N, C) digits in which one token reads `word`, (C,) or (B, C). What it stands for changes near it alone."""
    if not 0 <= token < digits.shape[1]:
        raise UsageError(f"token {token} is not one of 0 to {digits.shape[1] - 1}")
    edited = digits.clone()
    edited[:, token] = word
    return edited
