"""What is asked of a measured volume is what comes: latents are moved as far as their own reading of it is off.

A measured volume is nearly a linear map of latents. So a person who was drawn is brought to a value as Gaussian variables are
conditioned after they were drawn (Matheron's rule; Journel and Huijbregts, Mining Geostatistics, 1978): by the distance that is
missing, along what goes together with the volume in the public. All else of the person stays (docs/adr/0016).
"""

# B people, V measures, N tokens, C channels

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_RARE: Final = 0.01
_ALIKE: Final = 1e-3                                         # of the largest gain: directions below it are rounding


class Steering(nn.Module):
    """Public constants of every measure of `morphometry`, in its order, in ml. Nothing in it is trained on patients."""

    reads: Tensor                                            # (V, N, C): ml for each unit of a latent
    base: Tensor                                             # (V,) ml
    along: Tensor                                            # (V, N, C): covariance of latents with what is read, ml
    least: Tensor                                            # (V,) ml: from where to where people can be brought
    most: Tensor                                             # (V,) ml

    def __init__(self, measures: int, tokens: int, channels: int) -> None:
        super().__init__()
        for name in ("reads", "along"):
            self.register_buffer(name, torch.zeros(measures, tokens, channels))
        for name in ("base", "least", "most"):
            self.register_buffer(name, torch.zeros(measures))

    def read(self, latents: Tensor) -> Tensor:
        """(B, N, C) -> (B, V) ml."""
        return torch.einsum("bnc,vnc->bv", latents, self.reads) + self.base

    def reaches(self, wanted: Tensor) -> Tensor:
        """(B, V) ml -> (B, V) whether people can be brought there. False for NaN."""
        return (wanted >= self.least) & (wanted <= self.most)

    def forward(self, latents: Tensor, wanted: Tensor) -> Tensor:
        """(B, N, C) people and (B, V) ml that each should have, NaN where it is left to them -> (B, N, C) people.

        Beyond `least` and `most` a volume is not linear in latents, and nobody is brought there: it is left to them too.
        Volumes that cannot be had together, a brain and tissues that do not add up to it, are met as nearly as can be.
        """
        missing, moves = wanted - self.read(latents), torch.zeros_like(wanted)
        gain = torch.einsum("vnc,wnc->vw", self.reads, self.along)                             # of what is read, by each move
        unit = gain.diagonal().sqrt()
        gain = gain / (unit[:, None] * unit)
        for row, asked in enumerate(self.reaches(wanted)):
            if bool(asked.any()):
                inverse = torch.linalg.pinv(gain[asked][:, asked], rtol=_ALIKE)
                moves[row, asked] = inverse @ (missing[row, asked] / unit[asked]) / unit[asked]
        return latents + torch.einsum("bv,vnc->bnc", moves, self.along)

    def fit(self, latents: Tensor, volumes: Tensor, ridge: float) -> None:
        """Set the constants by ridge regression of (n, V) ml that public people's decoded images measure on their latents.

        From where to where people can be brought is what one in a hundred of the public has; `server.steering` narrows it.
        """
        flat, y = latents.double().flatten(1), volumes.double()
        middle, mean = flat.mean(0), y.mean(0)
        apart = flat - middle
        kernel = apart @ apart.T + ridge * torch.eye(len(flat), dtype=torch.float64)
        weights = apart.T @ torch.linalg.solve(kernel, y - mean)                               # (NC, V)
        seen = apart @ weights
        self.reads.copy_(weights.T.reshape_as(self.reads))
        self.base.copy_(mean - middle @ weights)
        self.least.copy_(y.quantile(_RARE, 0))
        self.most.copy_(y.quantile(1 - _RARE, 0))
        self.along.copy_((seen.T @ apart / len(flat)).reshape_as(self.along))
