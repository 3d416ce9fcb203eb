"""What every metric asks of its input: finite numbers, one volume, one grid, a bool mask. Each refusal names what was wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from braing3n_core.errors import DataRefused

FloatArray = NDArray[np.float64]


def finite(values: ArrayLike, purpose: str, dimensions: int) -> FloatArray:
    """The values as float64 with so many dimensions. Raises DataRefused for another shape, NaN or infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise DataRefused(f"{purpose} takes {dimensions} dimension(s), got shape {array.shape}; reshape the values first")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataRefused(f"{purpose} was given {count} values that are not finite; leave those out by name")
    return array


def two_sets(a: ArrayLike, b: ArrayLike, purpose: str, least: int = 2) -> tuple[FloatArray, FloatArray]:
    """Two feature sets (n, f) and (m, f) with at least `least` rows each."""
    x, y = finite(a, purpose, 2), finite(b, purpose, 2)
    if not (x.shape[1] == y.shape[1] >= 1 and min(len(x), len(y)) >= least):
        raise DataRefused(f"{purpose} needs two sets of at least {least} rows with equal features, got {x.shape} and {y.shape}")
    return x, y


def volume(tensor: Tensor) -> FloatArray:
    """(..., D, H, W) with leading axes of length one -> (D, H, W), finite."""
    array = _three_sides(tensor).double().numpy()
    if not np.isfinite(array).all():
        raise DataRefused("a volume has values that are not finite, so it has no score; find where they came from first")
    return np.asarray(array, dtype=np.float64)


def mask(tensor: Tensor) -> NDArray[np.bool_]:
    """A bool mask (..., D, H, W) -> (D, H, W)."""
    if tensor.dtype != torch.bool:
        raise DataRefused(f"a mask must be bool, got {tensor.dtype}; compare with a threshold first")
    return np.asarray(_three_sides(tensor).numpy(), dtype=bool)


def same_shape(*arrays: NDArray[np.generic]) -> None:
    """Refuse arrays that are not on one grid."""
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise DataRefused(f"shapes {sorted(shapes)} do not match; bring all volumes to one grid first")


def _three_sides(tensor: Tensor) -> Tensor:
    if not (tensor.ndim >= 3 and all(side == 1 for side in tensor.shape[:-3])):
        raise DataRefused(f"expected one volume (D, H, W), got shape {tuple(tensor.shape)}; pass volumes one by one")
    return tensor.detach().cpu().reshape(tensor.shape[-3:])
