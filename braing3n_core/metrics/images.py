"""How alike two volumes are, and whether one looks like a brain at all.

Volumes are float tensors on the plan's grid, (D, H, W) with any leading axes of length one, scaled to data range 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import mask as as_mask
from braing3n_core.metrics.checks import same_shape
from braing3n_core.metrics.checks import volume as as_volume
from braing3n_core.metrics.structure import DATA_RANGE, WINDOW, multiscale, similarity

BRAIN_THRESHOLD = 0.05                                       # half of the darkest tissue (CSF is scaled to 0.1-0.2)

# The five scales of the paper need sides above 160 voxels. Three scales with a 7-voxel window leave a window of
# 12 voxels at the coarsest scale of a 48^3 grid; the weights are the paper's first three, scaled to add up to 1.
MS_SSIM_WEIGHTS = tuple(w / 0.6305 for w in (0.0448, 0.2856, 0.3001))


def psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Peak signal-to-noise ratio over `mask`, in dB, data range 1: -10 log10(mean((a - b)^2)).

    Only voxels of `mask` count: an exactly black background would otherwise flatter every score by several dB.
    Equal volumes give infinity. Source: Horé and Ziou, ICPR 2010.
    """
    inside = as_mask(mask)
    x, y = as_volume(a), as_volume(b)
    same_shape(x, y, inside)
    if not inside.any():
        raise DataRefused("psnr over an empty mask has no meaning; check that the brain mask was found")
    error = float(np.mean(np.square(x[inside] - y[inside])))
    return math.inf if error == 0 else -10 * math.log10(error / DATA_RANGE**2)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of two volumes, no unit, at most 1 (equal): luminance x contrast x structure, averaged.

    (2 ma mb + c1)(2 sab + c2) / ((ma^2 + mb^2 + c1)(sa^2 + sb^2 + c2)) in a Gaussian window of 7 voxels, sigma 1.5, in 3D.
    Black background counts as alike, so compare numbers of one grid and one mask only. Source: Wang et al., IEEE TIP 2004;
    the same number as MONAI's.
    """
    return float(similarity(*_pair(a, b, "ssim", WINDOW))[0])


def ms_ssim(a: Tensor, b: Tensor) -> float:
    """Multi-scale structural similarity of two volumes, no unit, at most 1 (equal).

    prod_s contrast_s^w_s x luminance_last^w_last over three scales (each half the side of the one before), Gaussian
    window of 7 voxels, sigma 1.5, weights 0.071, 0.453, 0.476. Numbers of other grids, windows or weights do not
    compare with these. Source: Wang, Simoncelli and Bovik, Asilomar 2003; the same number as MONAI's.
    """
    return float(multiscale(*_pair(a, b, "ms_ssim", WINDOW * (len(MS_SSIM_WEIGHTS) - 1) ** 2), MS_SSIM_WEIGHTS))


def mean_pairwise_ms_ssim(volumes: Tensor | Sequence[Tensor], pairs: int, seed: int) -> float:
    """Diversity: mean MS-SSIM over `pairs` random pairs of different volumes, no unit. Lower is more diverse.

    `volumes` is (n, 1, D, H, W) or a sequence of volumes. Pairs are drawn without repetition from `seed`; asking for
    more than the n(n-1)/2 there are takes them all. Only worth something beside the same number on real volumes: a
    generator that repeats itself scores too high, and one that makes noise too low. Source: Pinaya et al., DGM4MICCAI 2022.
    """
    n = len(volumes)
    if not (n >= 2 and pairs >= 1):
        raise DataRefused(f"pairwise similarity needs 2 volumes and 1 pair, got {n} and {pairs}; generate more volumes")
    rows, columns = np.triu_indices(n, k=1)
    chosen = np.random.default_rng(seed % 2**64).permutation(len(rows))[:pairs]
    return float(np.mean([ms_ssim(volumes[rows[k]], volumes[columns[k]]) for k in chosen]))


def dice(mask_a: Tensor, mask_b: Tensor) -> float:
    """Overlap of two masks, 0 (apart) to 1 (equal), no unit: 2 |A and B| / (|A| + |B|). Source: Dice, Ecology 1945."""
    a, b = as_mask(mask_a), as_mask(mask_b)
    same_shape(a, b)
    total = int(a.sum()) + int(b.sum())
    if not total > 0:
        raise DataRefused("dice of two empty masks has no meaning; check that the brain mask was found")
    return 2 * int((a & b).sum()) / total


def brain_mask_of(volume: Tensor) -> Tensor:
    """(D, H, W) bool: the largest connected piece brighter than 0.05 with its holes filled.

    Meant for skull-stripped volumes with CSF at 0.1-0.2 and background 0. All False if nothing is bright enough.
    """
    bright = as_volume(volume) > BRAIN_THRESHOLD
    pieces, count = ndimage.label(bright)
    if count == 0:
        return torch.zeros(bright.shape, dtype=torch.bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return torch.from_numpy(np.asarray(ndimage.binary_fill_holes(pieces == sizes.argmax()), dtype=bool))


def signal_outside(volume: Tensor, mask: Tensor) -> float:
    """Part of the volume's signal that lies outside `mask`, 0 to 1, no unit: sum_outside |v| / sum |v|. Empty volume: 0."""
    v, inside = np.abs(as_volume(volume)), as_mask(mask)
    same_shape(v, inside)
    total = float(v.sum())
    return float(v[~inside].sum()) / total if total > 0 else 0.0


def _pair(a: Tensor, b: Tensor, purpose: str, least: int) -> tuple[Tensor, Tensor]:
    """Two volumes as (1, D, H, W) float32 on one grid with sides of at least `least` voxels."""
    x, y = (torch.from_numpy(as_volume(v)).float()[None] for v in (a, b))
    if not min(x.shape[1:]) >= least:
        raise DataRefused(f"{purpose} needs every side at least {least} voxels, got {tuple(x.shape[1:])}; use a finer grid")
    if x.shape != y.shape:
        raise DataRefused(f"{purpose} of {tuple(x.shape[1:])} against {tuple(y.shape[1:])}; bring both to one grid first")
    return x, y
