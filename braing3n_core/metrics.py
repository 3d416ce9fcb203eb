"""Numbers that say how good a synthetic volume is. Each refuses NaN by name, so a missing number never looks like a score.

Volumes are float tensors on the plan's grid, (D, H, W) with any leading axes of length one, scaled to data range 1.
"""

# n volumes, p pairs, C channel, (D H W) voxels, f features

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.metrics.regression import MultiScaleSSIMMetric
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

from braing3n_core.errors import DataRefused

DATA_RANGE = 1.0
BRAIN_THRESHOLD = 0.05                                       # half of the darkest tissue (CSF is scaled to 0.1-0.2)

# The five scales of the paper need sides above 160 voxels. Three scales with a 7-voxel window leave a window of
# 12 voxels at the coarsest scale of a 48^3 grid; the weights are the paper's first three, scaled to add up to 1.
MS_SSIM_KERNEL = 7                                           # voxels
MS_SSIM_SIGMA = 1.5                                          # voxels
MS_SSIM_WEIGHTS = tuple(w / 0.6305 for w in (0.0448, 0.2856, 0.3001))

FloatArray = NDArray[np.float64]


def psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Peak signal-to-noise ratio over `mask`, in dB, data range 1: -10 log10(mean((a - b)^2)).

    Only voxels of `mask` count: an exactly black background would otherwise flatter every score by several dB.
    Equal volumes give infinity. Source: Horé and Ziou, ICPR 2010.
    """
    inside = _mask(mask)
    x, y = _volume(a), _volume(b)
    _same_shape(x, y, inside)
    if not inside.any():
        raise DataRefused("psnr over an empty mask has no meaning; check that the brain mask was found")
    error = float(np.mean(np.square(x[inside] - y[inside])))
    return math.inf if error == 0 else -10 * math.log10(error / DATA_RANGE**2)


def ms_ssim(a: Tensor, b: Tensor) -> float:
    """Multi-scale structural similarity of two volumes, no unit, at most 1 (equal).

    prod_s contrast_s^w_s x luminance_last^w_last over three scales (each half the side of the one before), Gaussian
    window of 7 voxels, sigma 1.5, weights 0.071, 0.453, 0.476. Numbers of other grids, windows or weights do not
    compare with these. Source: Wang, Simoncelli and Bovik, Asilomar 2003, as computed by MONAI.
    """
    x, y = (torch.from_numpy(_volume(v)).float()[None, None] for v in (a, b))      # (1, 1, D, H, W)
    least = MS_SSIM_KERNEL * (len(MS_SSIM_WEIGHTS) - 1) ** 2
    if not min(x.shape[2:]) >= least:
        raise DataRefused(f"ms_ssim needs every side at least {least} voxels, got {tuple(x.shape[2:])}; use a finer grid")
    if x.shape != y.shape:
        raise DataRefused(f"ms_ssim of {tuple(x.shape[2:])} against {tuple(y.shape[2:])}; bring both to one grid first")
    metric = MultiScaleSSIMMetric(
        spatial_dims=3,
        data_range=DATA_RANGE,
        kernel_size=MS_SSIM_KERNEL,
        kernel_sigma=MS_SSIM_SIGMA,
        weights=MS_SSIM_WEIGHTS,
        reduction="none",
    )
    return float(metric(x, y).item())


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
    a, b = _mask(mask_a), _mask(mask_b)
    _same_shape(a, b)
    total = int(a.sum()) + int(b.sum())
    if not total > 0:
        raise DataRefused("dice of two empty masks has no meaning; check that the brain mask was found")
    return 2 * int((a & b).sum()) / total


def brain_mask_of(volume: Tensor) -> Tensor:
    """(D, H, W) bool: the largest connected piece brighter than 0.05 with its holes filled.

    Meant for skull-stripped volumes with CSF at 0.1-0.2 and background 0. All False if nothing is bright enough.
    """
    bright = _volume(volume) > BRAIN_THRESHOLD
    pieces, count = ndimage.label(bright)
    if count == 0:
        return torch.zeros(bright.shape, dtype=torch.bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return torch.from_numpy(np.asarray(ndimage.binary_fill_holes(pieces == sizes.argmax()), dtype=bool))


def signal_outside(volume: Tensor, mask: Tensor) -> float:
    """Part of the volume's signal that lies outside `mask`, 0 to 1, no unit: sum_outside |v| / sum |v|. Empty volume: 0."""
    v, inside = np.abs(_volume(volume)), _mask(mask)
    _same_shape(v, inside)
    total = float(v.sum())
    return float(v[~inside].sum()) / total if total > 0 else 0.0


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of two lists of numbers, -1 to 1, no unit: cov(x, y) / (sd x sd y)."""
    a, b = _finite(x, "correlation", 1), _finite(y, "correlation", 1)
    if not (a.shape == b.shape and a.size >= 3):
        raise DataRefused(f"correlation needs two lists of equal length, at least 3, got {a.size} and {b.size}")
    a, b = a - a.mean(), b - b.mean()
    spread = math.sqrt(float(a @ a) * float(b @ b))
    if not spread > 0:
        raise DataRefused("correlation with a list of equal values has no meaning; ask for values over a range")
    return float(np.clip(a @ b / spread, -1, 1))


def kid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Kernel inception distance: unbiased squared MMD between two feature sets (n, f) and (m, f), no unit. 0: same source.

    k(x, y) = (x.y / f + 1)^3; mean k(a, a') over a != a' + mean k(b, b') over b != b' - 2 mean k(a, b). Unbiased, so it may be
    slightly negative and may be used with few volumes, where a Fréchet distance is mostly bias. Say which features were
    used. Source: Bińkowski et al., ICLR 2018.
    """
    a, b = _finite(features_a, "kid", 2), _finite(features_b, "kid", 2)
    if not (a.shape[1] == b.shape[1] >= 1 and min(len(a), len(b)) >= 2):
        raise DataRefused(f"kid needs two sets of at least 2 rows with equal features, got {a.shape} and {b.shape}")

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)

    return _off_diagonal_mean(kernel(a, a)) + _off_diagonal_mean(kernel(b, b)) - 2 * float(kernel(a, b).mean())


def bootstrap_interval(
    values: ArrayLike,
    seed: int,
    *,
    statistic: Callable[[FloatArray], float] = lambda row: float(row.mean()),
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """(low, high) of `statistic` in the unit of `values`: percentile bootstrap, rows drawn with replacement from `seed`.

    `values` is one number (n,) or one row (n, k) per patient, so that pairs stay together. It says how far the number would
    move with other patients of the same kind, and nothing about other hospitals. Source: Efron and Tibshirani, 1993.
    """
    rows = np.asarray(values, dtype=np.float64)
    if not (rows.ndim in (1, 2) and len(rows) >= 2 and np.isfinite(rows).all()):
        raise DataRefused(f"an interval needs at least 2 finite values, got {rows.shape}; leave failed values out by name")
    if not (0 < level < 1 and resamples >= 100):
        raise DataRefused(f"an interval needs 0 < level < 1 and 100 resamples, got {level} and {resamples}")
    rng = np.random.default_rng(seed % 2**64)
    draws = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(resamples)]
    tail = (1 - level) / 2
    low, high = np.quantile(_finite(draws, "interval", 1), [tail, 1 - tail])
    return float(low), float(high)


def _off_diagonal_mean(gram: FloatArray) -> float:
    n = len(gram)
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1)))


def _finite(values: ArrayLike, purpose: str, dimensions: int) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise DataRefused(f"{purpose} takes {dimensions} dimension(s), got shape {array.shape}; reshape the values first")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataRefused(f"{purpose} was given {count} values that are not finite; leave those out by name")
    return array


def _three_sides(tensor: Tensor) -> Tensor:
    """(1, ..., D, H, W) -> (D, H, W)."""
    if not (tensor.ndim >= 3 and all(side == 1 for side in tensor.shape[:-3])):
        raise DataRefused(f"expected one volume (D, H, W), got shape {tuple(tensor.shape)}; pass volumes one by one")
    return tensor.detach().cpu().reshape(tensor.shape[-3:])


def _volume(tensor: Tensor) -> FloatArray:
    array = _three_sides(tensor).double().numpy()
    if not np.isfinite(array).all():
        raise DataRefused("a volume has values that are not finite, so it has no score; find where they came from first")
    return np.asarray(array, dtype=np.float64)


def _mask(tensor: Tensor) -> NDArray[np.bool_]:
    if tensor.dtype != torch.bool:
        raise DataRefused(f"a mask must be bool, got {tensor.dtype}; compare with a threshold first")
    return np.asarray(_three_sides(tensor).numpy(), dtype=bool)


def _same_shape(*arrays: NDArray[np.generic]) -> None:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise DataRefused(f"shapes {sorted(shapes)} do not match; bring all volumes to one grid first")
