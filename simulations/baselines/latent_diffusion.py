"""MONAI's latent diffusion on a grid of ours: an autoencoder, and a conditional U-Net on its latents.

The networks are MONAI's AutoencoderKL and DiffusionModelUNet, put together as in its brain model (Pinaya et al., DGM4MICCAI
2022, as in MONAI's model zoo): three latent channels, residual blocks that change the size, conditions both beside the latents
and by cross-attention, the same betas, DDIM. Unlike there, sides are halved twice and not three times, as voxels are four times
as wide; widths are an eighth; and there is no perceptual and no adversarial loss: the one needs weights that are fetched, the
other a third network.
"""

# B volumes, (D, H, W) voxels, (d, h, w) places of a latent, M variables, F features of the conditions

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers.ddim import DDIMScheduler
from torch import Tensor, nn

from braing3n_core.errors import UsageError
from braing3n_core.models.population import MISSING
from braing3n_core.models.presets import Sides
from braing3n_core.plan import Categorical, Continuous

LATENT_CHANNELS = 3
_WIDTHS = (32, 32, 64)                                       # of the U-Net
_AE_WIDTHS = (8, 16, 32)                                     # each but the last halves the sides
_TIMES = 1000
_KL = 1e-6                                                   # of the KL term beside L1


class LatentDiffusion(nn.Module):
    """Both networks. `scale` brings latents to a variance of one. Raises UsageError unless sides can be halved four times."""

    scale: Tensor                                            # ()

    def __init__(self, shape: Sides, variables: Sequence[Continuous | Categorical]) -> None:
        super().__init__()
        if any(side % 16 for side in shape):
            raise UsageError(f"MONAI's networks halve each side four times; not every side of {shape} is a multiple of 16")
        self.variables = tuple(variables)
        self.latent = tuple(side // 2 ** (len(_AE_WIDTHS) - 1) for side in shape)
        features = self._context(torch.zeros(1, len(self.variables))).shape[1]
        self.autoencoder = AutoencoderKL(
            spatial_dims=3, in_channels=1, out_channels=1, channels=_AE_WIDTHS, latent_channels=LATENT_CHANNELS,
            num_res_blocks=2, norm_num_groups=4, attention_levels=(False,) * len(_AE_WIDTHS),
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip
        self.unet = DiffusionModelUNet(
            spatial_dims=3, in_channels=LATENT_CHANNELS + features, out_channels=LATENT_CHANNELS, channels=_WIDTHS,
            num_res_blocks=2, attention_levels=(False, True, True), num_head_channels=(0, 32, 32), norm_num_groups=8,
            with_conditioning=True, cross_attention_dim=features, resblock_updown=True,
        )  # fmt: skip
        self.register_buffer("scale", torch.ones(()))

    def encode(self, volumes: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, 3, d, h, w): the mean latents."""
        mean: Tensor = self.autoencoder.encode(volumes)[0]
        return mean

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, d, h, w) -> (B, 1, D, H, W)."""
        volumes: Tensor = self.autoencoder.decode(latents)
        return volumes

    def autoencoder_loss(self, volumes: Tensor, draw: torch.Generator) -> Tensor:
        """() L1 of (B, 1, D, H, W) from latents drawn as the encoder says, and a little of their KL to a standard normal."""
        mean, deviation = self.autoencoder.encode(volumes)
        made = self.decode(mean + deviation * torch.randn(mean.shape, generator=draw))
        divergence = (mean.square() + deviation.square() - 2 * deviation.log() - 1).flatten(1).sum(1).mean() / 2
        loss: Tensor = (made - volumes).abs().mean() + _KL * divergence
        return loss

    def diffusion_loss(self, latents: Tensor, codes: Tensor, draw: torch.Generator) -> Tensor:
        """() squared error of the noise on (B, 3, d, h, w) latents of people with (B, M) codes (Ho et al., 2006.11239)."""
        noise = torch.randn(latents.shape, generator=draw)
        times = torch.randint(_TIMES, (len(latents),), generator=draw)
        noisy = _schedule().add_noise(latents / self.scale, noise, times)
        return (self._noise_in(noisy, times, codes) - noise).square().mean()

    @torch.no_grad()
    def sample(self, codes: Tensor, steps: int, seed: int) -> Tensor:
        """(B, M) codes -> (B, 1, D, H, W) in `steps` DDIM steps, one evaluation each (Song et al., arXiv 2010.02502)."""
        schedule = _schedule()
        schedule.set_timesteps(steps)
        # From pure noise in steps of one length, each to where the next begins. MONAI 1.6 lists times that its own steps do not
        # lead to; with few steps that alone makes samples worse.
        schedule.timesteps = torch.arange(steps, 0, -1) * (_TIMES // steps) - 1
        z = torch.randn(len(codes), LATENT_CHANNELS, *self.latent, generator=torch.Generator().manual_seed(seed))
        for t in schedule.timesteps:
            z, _ = schedule.step(self._noise_in(z, t[None].expand(len(z)), codes), t, z)
        return self.decode(z * self.scale)

    def _noise_in(self, noisy: Tensor, times: Tensor, codes: Tensor) -> Tensor:
        context = self._context(codes)
        beside = context[:, :, None, None, None].expand(-1, -1, *noisy.shape[2:])
        noise: Tensor = self.unet(torch.cat([noisy, beside], 1), times, context=context[:, None])
        return noise

    def _context(self, codes: Tensor) -> Tensor:
        """(B, M) -> (B, F): of a number its value and whether it is known, of a word an indicator of each level."""
        columns = []
        for variable, code in zip(self.variables, codes.T, strict=True):
            known = code != MISSING
            if isinstance(variable, Categorical):
                columns += [(code == level).float() for level in range(len(variable.levels))]
            else:
                columns += [code * known, known.float()]
        return torch.stack(columns, 1)


def _schedule() -> DDIMScheduler:
    """Betas of MONAI's brain model; latents are not clipped."""
    return DDIMScheduler(
        num_train_timesteps=_TIMES, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0205, clip_sample=False
    )
