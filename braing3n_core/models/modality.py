"""A modality beside T1w: the same brain as another sequence shows it. Its weights lie beside the prior's, which stay.

Tokens come from the prior's own encoder, which sees differences to a public mean volume and asks not of which modality; mean
volume, projection and decoder are the modality's own. Its latents are made from those of the T1w by rectified flow, so that
both images are of one anatomy (docs/adr/0010).
"""

# B scans, N tokens, V voxels of a cube, E channels of a token, C of a latent, M variables

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braing3n_core.models.blocks import cubes_from_volume
from braing3n_core.models.decoder import Decoder
from braing3n_core.models.generator import Flow
from braing3n_core.models.presets import Preset
from braing3n_core.plan import Categorical, Continuous


class Translation(Flow):
    """Velocity of the modality's latents: (B, N, C) noisy, (B,) times, (B, N, C) of the T1w, (B, M) codes -> (B, N, C)."""

    def __init__(self, preset: Preset, inside: Tensor, variables: Sequence[Continuous | Categorical]) -> None:
        super().__init__(preset, inside, variables, 2 * preset.latent_width, preset.trajectory_depth)

    def forward(self, z: Tensor, t: Tensor, first: Tensor, codes: Tensor) -> Tensor:
        return self.velocity(torch.cat([z, first], 2), t, codes)


class Modality(nn.Module):
    """Projection, decoder and translation of one modality, and the constants that normalise its latents."""

    centre: Tensor                                           # (N, C)
    scale: Tensor                                            # (C,)

    def __init__(
        self, preset: Preset, inside: Tensor, brain: Tensor, tissue: Tensor, variables: Sequence[Continuous | Categorical]
    ) -> None:
        super().__init__()
        self.patch = preset.patch
        self.projection = nn.Linear(preset.encoder_width, preset.latent_width)
        self.decoder = Decoder(preset, inside, brain, tissue)
        self.translation = Translation(preset, inside, variables)
        self.register_buffer("centre", torch.zeros(len(inside), preset.latent_width))
        self.register_buffer("scale", torch.ones(preset.latent_width))

    def cubes(self, volumes: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, N, V): difference to the modality's public mean, at the brain's cubes."""
        apart = (volumes - self.decoder.mean) * self.decoder.brain
        return cubes_from_volume(apart, self.patch)[:, self.decoder.inside]

    def latents(self, tokens: Tensor) -> Tensor:
        """(B, N, E) tokens -> (B, N, C) normalised latents."""
        return (self.projection(tokens) - self.centre) / self.scale
