"""Sampling speed beside MONAI's latent diffusion: both on one grid, of about equal size, in turn in one process.

MONAI's networks hold the weights they are built with: speed does not depend on them, so nothing is said about quality here.
Absolute times are this machine's; only the ratio travels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers.ddim import DDIMScheduler
from torch import Tensor, nn

from braing3n_core.flow import euler
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS, Sides
from braing3n_core.prior import SHIPPED, read_prior

# 3 latent channels, as MONAI's brain model (Pinaya et al., DGM4MICCAI 2022), but at a quarter of each side: the grid is coarse.
LATENT_CHANNELS = 3
_WIDTHS = (32, 32, 64)                                       # of the U-Net; with the autoencoder 4.1 M weights, as many as ours
_AE_WIDTHS = (16, 32, 32)
_CONTEXT = 6                                                 # conditioning variables
Say = Callable[[str], None]


@dataclass(frozen=True)
class Speed:
    """One sampler: its size, and the median time of a volume."""

    name: str
    parameters: int                                          # of everything that sampling needs
    evaluations: int                                         # of the network, for one volume
    seconds: float


class LatentDiffusion(nn.Module):
    """MONAI's autoencoder and conditional U-Net on a grid; six numbers are the condition, by cross-attention."""

    def __init__(self, shape: Sides) -> None:
        super().__init__()
        self.latent = tuple(side // 2 ** (len(_AE_WIDTHS) - 1) for side in shape)
        self.autoencoder = AutoencoderKL(
            spatial_dims=3, in_channels=1, out_channels=1, channels=_AE_WIDTHS, latent_channels=LATENT_CHANNELS,
            num_res_blocks=2, norm_num_groups=8, attention_levels=(False,) * len(_AE_WIDTHS),
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip
        self.unet = DiffusionModelUNet(
            spatial_dims=3, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, channels=_WIDTHS,
            num_res_blocks=2, attention_levels=(False, True, True), num_head_channels=(0, 32, 32), norm_num_groups=8,
            with_conditioning=True, cross_attention_dim=_CONTEXT,
        )  # fmt: skip

    @torch.no_grad()
    def sample(self, conditions: Tensor, steps: int, seed: int) -> Tensor:
        """(B, 6) conditions -> (B, 1, D, H, W) in `steps` DDIM steps (Song et al., arXiv 2010.02502)."""
        scheduler = DDIMScheduler(num_train_timesteps=1000)
        scheduler.set_timesteps(steps)
        z = torch.randn(len(conditions), LATENT_CHANNELS, *self.latent, generator=torch.Generator().manual_seed(seed))
        for t in scheduler.timesteps:
            noise = self.unet(z, t[None].expand(len(z)), context=conditions[:, None])
            z, _ = scheduler.step(noise, t, z)
        decoded: Tensor = self.autoencoder.decode_stage_2_outputs(z)
        return decoded


def compare(steps: int, repeats: int, say: Say) -> tuple[Speed, Speed]:
    """The shipped generator and MONAI's latent diffusion, `steps` network evaluations each, one volume at a time, in turn."""
    ours = read_prior(SHIPPED / "tiny.safetensors").eval()
    torch.manual_seed(0)
    theirs = LatentDiffusion(PRESETS["tiny"].shape).eval()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-1, repeats):                          # the first turn warms both up and is not counted
        runs = (lambda seed: _ours(ours, steps, seed), lambda seed: theirs.sample(torch.zeros(1, _CONTEXT), steps, seed))
        for place, run in enumerate(runs):
            began = perf_counter()
            run(turn % 2**31)
            if turn >= 0:
                times[place].append(perf_counter() - began)
        say(f"sampled {turn + 1} of {repeats} volumes of each")
    used = (_size(ours.generator) + _size(ours.decoder), _size(theirs))
    names = ("braing3n tiny, Euler", "MONAI latent diffusion, DDIM")
    first, second = (
        Speed(name, size, steps, statistics.median(each)) for name, size, each in zip(names, used, times, strict=True)
    )
    return first, second


def _ours(model: Brain, steps: int, seed: int) -> Tensor:
    return generate(model, [{"age": 60.0}], seed, steps=steps, guidance=1.0, sampler=euler)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def told(found: tuple[Speed, Speed]) -> list[str]:
    """Two lines and the ratio."""
    lines = [f"{row.name:<32}{row.parameters / 1e6:>6.1f} M weights, {row.evaluations} evaluations" for row in found]
    return [*lines, f"volumes a second, first over second: {ratio(found):.1f}"]


def ratio(found: tuple[Speed, Speed]) -> float:
    """How many volumes the first makes while the second makes one."""
    return found[1].seconds / found[0].seconds


def as_json(found: tuple[Speed, Speed]) -> dict[str, object]:
    """The same for a program."""
    return {"samplers": [asdict(row) for row in found], "ratio": ratio(found)}
