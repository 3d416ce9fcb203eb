"""Volumes of tissue from intensities and the template's tissue maps. Nothing is learned.

Ventricles: in the template's ventricle region, a voxel is fluid as far as it is darker than the tissue that the template
expects there. How bright grey and white matter are is fitted to the tissue around the region, so contrast does not matter.

How far to trust `ventricles_ml` (measured by tests/braing3n_core/test_morphometry.py, at 4 mm):
* real scans of two sites, 28 each, against label maps brought to template space: r 0.94 and 0.98, mean error -3.4 and
  +0.8 ml (medians +1.4 and +3.1: ventricles above about 50 ml outgrow the region and measure too small); against volumes in
  the scanner's space r 0.91 and 0.96;
* phantoms of one hospital: r 0.92 with `Truth.ventricles_ml`, twice as much: the region also holds the third ventricle,
  the cisterns behind it and thinned deep grey matter, so it is a scale to ask by and no volume (braing3n_core.tissues);
* white-matter lesions beside the ventricles count as fluid by about half of their contrast.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from braing3n_core.data.template import Template
from braing3n_core.data.template import template as public
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import Preset

_FLUID_QUANTILE = 0.03                                       # of the region's voxels: pure fluid even in young brains
_TOLERANCE = 0.9                                             # tissue a tenth darker than expected is still tissue
_SHELL_MM = 16.0                                             # tissue this near the region sets the levels
_EDGE_MM = 8.0                                               # but none so near the surface that it may be partly outside
_LEAST_CONTRAST = 0.05                                       # of white; levels closer than that tell nothing apart
_LEAST_VOXELS = 8


@dataclass(frozen=True)
class Morphometry:
    """Volumes in ml of template space: what an affine makes of the head, not its size in the scanner."""

    brain_ml: float
    gm_ml: float
    wm_ml: float
    csf_ml: float
    ventricles_ml: float                 # lateral ventricles, and what of the third lies in the template's region


@dataclass(frozen=True)
class _Levels:
    """How bright each tissue is in one volume; fluid < grey < white, whatever the volume."""

    fluid: float
    grey: float
    white: float


def measure(volume: Tensor, template: Template, spacing_mm: tuple[float, float, float]) -> Morphometry:
    """Tissue volumes of one preprocessed volume, (1, D, H, W) or (D, H, W), on the template's grid.

    Grey, white and fluid shares follow from brightness alone, so a voxel at the brain's edge counts as fluid in part.
    """
    values = _checked(volume, template)
    levels = _levels(values, template, spacing_mm)
    voxel_ml = math.prod(spacing_mm) / 1000
    brain = (values > levels.fluid / 2) & binary_dilation(template.mask.numpy())
    fluid = np.interp(values, [levels.fluid, levels.grey], [1.0, 0.0]) * brain
    white = np.interp(values, [levels.grey, levels.white], [0.0, 1.0]) * brain
    return Morphometry(
        brain_ml=float(brain.sum()) * voxel_ml,
        gm_ml=float((brain - fluid - white).sum()) * voxel_ml,
        wm_ml=float(white.sum()) * voxel_ml,
        csf_ml=float(fluid.sum()) * voxel_ml,
        ventricles_ml=float(_ventricles(values, template, levels).sum()) * voxel_ml,
    )


def measures(volumes: Tensor, preset: Preset) -> dict[str, np.ndarray]:
    """Every measure of (n, 1, D, H, W) volumes on the preset's grid, each (n,) in ml, by its name in Morphometry."""
    rows = [asdict(measure(volume, public(preset), preset.spacing_mm)) for volume in volumes]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _ventricles(values: np.ndarray, template: Template, levels: _Levels) -> np.ndarray:
    """Fluid share of each voxel of the ventricle region: 0 at the tissue expected there, 1 at pure fluid."""
    region = template.ventricles.numpy()
    expected = _TOLERANCE * _expected(template, levels)[region]
    range_ = np.maximum(expected - levels.fluid, _LEAST_CONTRAST * levels.white)
    return np.asarray(np.clip((expected - values[region]) / range_, 0, 1))


def _expected(template: Template, levels: _Levels) -> np.ndarray:
    """(D, H, W) brightness if each voxel were the template's tissue without its fluid."""
    gm, wm = template.gm.numpy(), template.wm.numpy()
    return np.asarray((levels.grey * gm + levels.white * wm) / np.maximum(gm + wm, 0.05))


def _levels(values: np.ndarray, template: Template, spacing_mm: tuple[float, float, float]) -> _Levels:
    """Fluid from the region's darkest voxels; grey and white by least squares in the tissue around it."""
    region = template.ventricles.numpy()
    shell = _around(region, template.mask.numpy(), min(spacing_mm))
    if not (region.sum() >= _LEAST_VOXELS and shell.sum() >= _LEAST_VOXELS):
        raise DataRefused("the grid is too coarse to measure ventricles; use a finer preset or leave the variable out")
    gm, wm = template.gm.numpy()[shell], template.wm.numpy()[shell]
    fluid = float(np.quantile(values[region], _FLUID_QUANTILE))
    share = np.clip(1 - gm - wm, 0, 1)
    grey, white = np.linalg.lstsq(np.stack([gm, wm], axis=1), values[shell] - fluid * share, rcond=None)[0]
    least = max(_LEAST_CONTRAST * float(white), 1e-3)
    grey = max(float(grey), fluid + least)
    return _Levels(fluid, grey, max(float(white), grey + least))


def _around(region: np.ndarray, mask: np.ndarray, mm: float) -> np.ndarray:
    wide = binary_dilation(region, iterations=max(1, round(_SHELL_MM / mm)))
    deep = binary_erosion(mask, iterations=max(1, round(_EDGE_MM / mm)))
    return np.asarray(wide & deep & ~region)


def _checked(volume: Tensor, template: Template) -> np.ndarray:
    values, grid = volume.detach().cpu().numpy(), tuple(template.mask.shape)
    if values.shape not in (grid, (1, *grid)):
        raise DataRefused(f"a volume of shape {values.shape} is not on the grid {grid}; preprocess it first")
    if not np.isfinite(values).all():
        raise DataRefused("a volume has values that are not finite, so it cannot be measured; find where they came from first")
    return np.asarray(values.reshape(grid), np.float64)
