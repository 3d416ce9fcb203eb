"""The decoder: latent tokens to voxels, as a residual on the public mean volume, by a network that knows where it is.

Registered brains are mostly "where": a convolutional decoder without positions stays at the mean volume, a linear map per
position alone already explains most of the rest, and the convolutions add what crosses cube borders.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor, nn

from braing3n_core.models.blocks import Code, PerPosition, volume_from_cubes
from braing3n_core.models.presets import Preset, Sides

STYLE_WAVES = 3                                              # cosine waves per axis of the receive-field basis


class Mix(nn.Module):
    """A weighted sum of K maps: (B, K, D, H, W) -> (B, D, H, W). A leaf, because Opacus follows parameters by leaf.

    Maps that are expanded over the batch give one sum that is, too: not to be changed in place.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(maps))

    def forward(self, maps: Tensor) -> Tensor:
        if len(maps) and maps.stride(0) == 0:                # the same maps for all rows: mixed once, not for every row
            return torch.einsum("kdhw,k->dhw", maps[0], self.weight).expand(len(maps), -1, -1, -1)
        return torch.einsum("bkdhw,k->bdhw", maps, self.weight)

    def patient_gradients(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """(P, K, maps, D, H, W) and (P, K, D, H, W) -> (P, maps); see privacy.fast_layers."""
        maps, grads = x.flatten(3), grad.flatten(2)          # (P, K, maps, V), (P, K, V)
        if all(size == 1 or stride == 0 for size, stride in zip(maps.shape[:2], maps.stride()[:2], strict=True)):
            # The same maps for all rows, one memory: the public tissue and field are read once and not for every row.
            rows = grads @ maps[0, 0].T                      # (P, K, maps)
        else:
            rows = grads.new_empty(maps.shape[:3])
            for row, own, grad in zip(rows.flatten(0, 1), maps.flatten(0, 1), grads.flatten(0, 1), strict=True):
                torch.mv(own, grad, out=row)                 # all in one call take six times as long on a CPU
        return {"weight": rows.sum(1)}


class Style(nn.Module):
    """What scanners differ in, and little else: a tone curve, tissue contrast and a smooth receive field.

    (B, 1, D, H, W) -> the same. 2 tone weights, 3 tissue weights, 27 field weights; all zero leaves x unchanged. So few
    numbers that differential privacy hardly disturbs them.
    """

    tissue: Tensor                                           # (3, D, H, W) public grey, white and CSF maps
    field: Tensor                                            # (27, D, H, W) products of cosines, each at most 1

    def __init__(self, tissue: Tensor) -> None:
        super().__init__()
        D, H, W = tissue.shape[1:]
        self.register_buffer("tissue", tissue, persistent=False)
        self.register_buffer("field", _cosines((D, H, W)), persistent=False)
        self.tone = Mix(2)
        self.contrast = Mix(len(tissue))
        self.gain = Mix(len(self.field))

    def forward(self, x: Tensor) -> Tensor:
        flat, each = x[:, 0], (len(x), -1, -1, -1, -1)
        bend = flat * (1 - flat)
        toned = flat + self.tone(torch.stack([bend, bend * (1 - 2 * flat)], 1))
        shifted = toned + self.contrast(self.tissue.expand(each)) * (flat > 0)
        return (shifted * (1 + self.gain(self.field.expand(each))))[:, None]


class Decoder(nn.Module):
    """(B, N, C) normalised latents -> (B, 1, D, H, W) volume, zero outside the brain."""

    mean: Tensor                                             # (D, H, W) public mean volume
    brain: Tensor                                            # (D, H, W) 1 where tissue may be
    inside: Tensor                                           # (N,) places of the tokens among the d*h*w cubes

    def __init__(self, preset: Preset, inside: Tensor, brain: Tensor, tissue: Tensor) -> None:
        super().__init__()
        self.shape, self.patch, self.grid = preset.shape, preset.patch, preset.tokens_per_axis
        width, (d, h, w) = preset.decoder_channels, preset.tokens_per_axis
        self.register_buffer("mean", torch.zeros(preset.shape))
        self.register_buffer("brain", brain.float(), persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        self.linear = PerPosition(len(inside), preset.latent_width, preset.patch_voxels)
        self.enter = nn.Linear(preset.latent_width, 2 * width)
        self.coarse_code = Code(2 * width, d, h, w)
        self.coarse = nn.Conv3d(2 * width, width, 3, padding=1)
        self.middle_code = Code(width, 2 * d, 2 * h, 2 * w)
        self.middle = nn.Conv3d(width, width, 3, padding=1)
        self.leave = nn.Conv3d(width, preset.patch_voxels // 8, 1)
        self.style = Style(tissue)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]  # Conv3d has a bias here

    def forward(self, z: Tensor) -> Tensor:
        x = self.mean + self._linear(z) + self._convolved(z)
        return self.style(x * self.brain) * self.brain

    def _linear(self, z: Tensor) -> Tensor:
        return volume_from_cubes(self._scatter(self.linear(z)), self.shape, self.patch)

    def _convolved(self, z: Tensor) -> Tensor:
        d, h, w = self.grid
        x = self._scatter(self.enter(z)).transpose(1, 2).reshape(len(z), -1, d, h, w)
        x = F.gelu(self.coarse(F.gelu(self.coarse_code(x))))                                  # (B, E, d, h, w)
        x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)           # (B, E, 2d, 2h, 2w)
        x = self.leave(F.gelu(self.middle(self.middle_code(x))))                              # (B, pqr/8, 2d, 2h, 2w)
        p, q, r = (side // 2 for side in self.patch)
        return volume_from_cubes(x.flatten(2).transpose(1, 2), self.shape, (p, q, r))

    def _scatter(self, values: Tensor) -> Tensor:
        """(B, N, E) at the brain's cubes -> (B, d*h*w, E), zero elsewhere."""
        B, _, E = values.shape
        return values.new_zeros(B, math.prod(self.grid), E).index_copy(1, self.inside, values)


def _cosines(shape: Sides) -> Tensor:
    """(27, D, H, W): the lowest cosines of each axis, multiplied."""
    waves = [
        torch.stack([torch.cos(math.pi * k * (torch.arange(n) + 0.5) / n) for k in range(STYLE_WAVES)]) for n in shape
    ]
    x, y, z = waves
    return torch.einsum("id,jh,kw->ijkdhw", x, y, z).reshape(-1, *shape)
