"""A scan as a row of numbers: the frozen encoder's tokens, pooled. For probes, distances of cohorts, a hospital's own models.

An embedding is personal data. Nothing here adds noise, so a row never leaves the site that holds the scan.
B volumes, N tokens, C channels, R regions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from braing3n_core.models.brain import Brain

Pool = Literal["mean", "regions", "none"]
_REGIONS_PER_AXIS = 3
_AT_ONCE = 8                                                 # volumes


@torch.no_grad()
def embed(model: Brain, volumes: Tensor, pool: Pool = "mean") -> Tensor:
    """(B, 1, D, H, W) preprocessed volumes -> (B, F) features; nothing random in them.

    mean: F = C, the mean of all tokens. regions: F = R*C, the mean in each of 3 x 3 x 3 boxes of the token grid that hold
    brain. none: F = N*C, every token.
    """
    tokens = torch.cat([model.encoder(model.cubes(part)) for part in volumes.split(_AT_ONCE)])
    match pool:
        case "mean":
            return tokens.mean(1)
        case "regions":
            region = regions(model)
            return torch.cat([tokens[:, region == each].mean(1) for each in region.unique()], 1)
        case "none":
            return tokens.flatten(1)


def regions(model: Brain) -> Tensor:
    """(N,) box of each token: the grid cut in three along each axis, as evenly as its sides allow."""
    d, h, w = model.preset.tokens_per_axis
    place = model.decoder.inside
    axes = (place // (h * w), place // w % h, place % w)
    third = [axis * _REGIONS_PER_AXIS // side for axis, side in zip(axes, (d, h, w), strict=True)]
    return (third[0] * _REGIONS_PER_AXIS + third[1]) * _REGIONS_PER_AXIS + third[2]
