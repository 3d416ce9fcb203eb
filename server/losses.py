"""What public training may lose besides squared error. Stages of a plan have squared error alone."""

# B volumes, N cubes of (p, q, r) voxels, K visible ones, (D, H, W) voxels

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.errors import PlanRefused
from braing3n_core.metrics.images import DATA_RANGE, WINDOW, WINDOW_SIGMA
from braing3n_core.models.presets import Sides
from braing3n_core.models.tokenizer import over_hidden

_SCALES = 3                                                  # each half the sides of the one before
_LEAST_MEAN, _LEAST_SPREAD = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2              # c1 and c2 of the paper


def spectral_loss(predicted: Tensor, cubes: Tensor, keep: Tensor, patch: Sides) -> Tensor:
    """() mean modulus of the difference of spectra, over hidden cubes: (B, N, pqr) predicted and true, (B, K) visible places.

    Squared error is by Parseval the same in space and in frequency; this counts a wave by its amplitude and not by its square,
    however fine it is, so that faint detail weighs more. The transform is orthonormal, cube by cube.
    """
    waves = torch.fft.fftn((predicted - cubes).unflatten(2, patch), dim=(2, 3, 4), norm="ortho")
    return over_hidden(waves.abs().flatten(2).mean(2), keep).mean()


def structural_loss(made: Tensor, volumes: Tensor, brain: Tensor, weight: float) -> Tensor:
    """() mean absolute error inside (D, H, W) `brain`, and `weight` times what similarity lacks of 1 on three scales.

    (B, 1, D, H, W) both. Raises PlanRefused if a side is too short for the window on the coarsest scale: below 28 voxels.
    """
    absolute = ((made - volumes).abs() * brain).sum() / (len(made) * brain.sum())
    scales = []
    for _ in range(_SCALES):
        scales.append(1 - similarity(made[:, 0], volumes[:, 0]))
        made, volumes = F.avg_pool3d(made, 2), F.avg_pool3d(volumes, 2)
    return absolute + weight * torch.stack(scales).mean()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """() mean structural similarity of (B, D, H, W) volumes: what `metrics.ssim` measures, Wang et al., IEEE TIP 2004.

    The window is a product of three lines, so it is taken axis by axis. MONAI's loss, of the same value, convolves with all its
    voxels at once, and on 48^3 takes more than ten times as long. Raises PlanRefused if a side is shorter than the window.
    """
    if not min(a.shape[1:]) >= WINDOW:
        raise PlanRefused(f"a grid of {tuple(a.shape[1:])} voxels is too small for windows of {WINDOW}; leave out `structural`")
    lines = [_window(side, a) for side in a.shape[1:]]

    def mean(x: Tensor) -> Tensor:
        return torch.einsum("bdhw,id,jh,kw->bijk", x, *lines)

    mean_a, mean_b = mean(a), mean(b)
    spread = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _LEAST_MEAN) / (mean_a**2 + mean_b**2 + _LEAST_MEAN)
    return (luminance * (2 * both + _LEAST_SPREAD) / (spread + _LEAST_SPREAD)).mean()


def _window(side: int, like: Tensor) -> Tensor:
    """(side - 6, side): a Gaussian of seven voxels at each place where it fits."""
    places = torch.arange(side - WINDOW + 1, device=like.device)[:, None] + WINDOW // 2
    away = torch.arange(side, device=like.device) - places
    bell = torch.exp(-0.5 * (away / WINDOW_SIGMA) ** 2) * (away.abs() <= WINDOW // 2)
    return (bell / bell.sum(1, keepdim=True)).to(like.dtype)
