"""What public training may lose besides squared error. Stages of a plan have squared error alone."""

# B volumes, N cubes of (p, q, r) voxels, K visible ones, (D, H, W) voxels

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.errors import PlanRefused
from braing3n_core.metrics.structure import WINDOW, similarity
from braing3n_core.models.presets import Sides
from braing3n_core.models.tokenizer import over_hidden

_SCALES = 3                                                  # each half the sides of the one before


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
    if not min(volumes.shape[2:]) >= WINDOW * 2 ** (_SCALES - 1):
        sides = tuple(volumes.shape[2:])
        raise PlanRefused(f"a grid of {sides} is too small for windows of {WINDOW} on {_SCALES} scales; leave out `structural`")
    absolute = ((made - volumes).abs() * brain).sum() / (len(made) * brain.sum())
    scales = []
    for _ in range(_SCALES):
        alike, _ = similarity(made[:, 0], volumes[:, 0])
        scales.append(1 - alike.mean())
        made, volumes = F.avg_pool3d(made, 2), F.avg_pool3d(volumes, 2)
    return absolute + weight * torch.stack(scales).mean()
