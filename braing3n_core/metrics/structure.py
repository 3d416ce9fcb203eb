"""Structural similarity in 3D on one and on several scales, with a gradient: the metric and the loss are one function.

The Gaussian window is a product of three lines, so it is taken axis by axis. MONAI's, of the same value to rounding
(tests/braing3n_core/metrics/test_structure.py), convolves with all its 343 voxels and takes more than ten times as long on
48^3.
"""

# B volumes, (D, H, W) voxels

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.errors import DataRefused

DATA_RANGE = 1.0
WINDOW = 7                                                   # voxels
WINDOW_SIGMA = 1.5                                           # voxels
_LEAST_MEAN, _LEAST_SPREAD = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2              # c1 and c2 of the paper


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean structural similarity and (B,) its contrast and structure alone, of (B, D, H, W) volumes of range 1.

    (2 ma mb + c1) / (ma^2 + mb^2 + c1) times (2 sab + c2) / (sa^2 + sb^2 + c2), and the second of these, where the window fits.
    Source: Wang et al., IEEE TIP 2004. Raises DataRefused if a side is shorter than the window's 7 voxels.
    """
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _windowed(torch.stack([a, b, a * a, b * b, a * b]))
    spread = mean_aa - mean_a**2 + mean_bb - mean_b**2
    both = mean_ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _LEAST_MEAN) / (mean_a**2 + mean_b**2 + _LEAST_MEAN)
    structure = (2 * both + _LEAST_SPREAD) / (spread + _LEAST_SPREAD)
    return (luminance * structure).flatten(1).mean(1), structure.flatten(1).mean(1)


def multiscale(a: Tensor, b: Tensor, weights: tuple[float, ...]) -> Tensor:
    """(B,) multi-scale structural similarity of (B, D, H, W) volumes: a weight for each scale, each half the one before.

    The product over scales of contrast and structure to the power of their weight, and of luminance on the last; what is below
    zero counts as zero. Source: Wang, Simoncelli and Bovik, Asilomar 2003. Raises DataRefused if a side is shorter than the
    window on the last scale: below 28 voxels for three.
    """
    found = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        whole, structure = similarity(a, b)
        last = scale == len(weights) - 1
        found = found * (whole if last else structure).relu() ** weight
        if not last:
            a, b = (F.avg_pool3d(x[:, None], 2)[:, 0] for x in (a, b))
    return found


def _windowed(x: Tensor) -> Tensor:
    """(..., D, H, W) -> the mean in the window wherever it fits, one axis after the other."""
    along_d, along_h, along_w = (_window(side, x) for side in x.shape[-3:])
    flat = along_h @ (x @ along_w.T)                         # (..., D, H - 6, W - 6)
    found: Tensor = (along_d @ flat.flatten(-2)).unflatten(-1, flat.shape[-2:])
    return found


def _window(side: int, like: Tensor) -> Tensor:
    """(side - 6, side): a Gaussian of seven voxels at each place where it fits."""
    if not side >= WINDOW:
        raise DataRefused(f"structure needs every side at least {WINDOW} voxels on every scale, got {side}; use a finer grid")
    places = torch.arange(side - WINDOW + 1, device=like.device)[:, None] + WINDOW // 2
    away = torch.arange(side, device=like.device) - places
    bell = torch.exp(-0.5 * (away / WINDOW_SIGMA) ** 2) * (away.abs() <= WINDOW // 2)
    return (bell / bell.sum(1, keepdim=True)).to(like.dtype)
