"""One scan onto the plan's grid: where it lies, how sharp it is, how bright it is. MONAI does the resampling.

1. read; 2. affine to the template, or none; 3. smooth to the grid's voxel, resample once; 4. white matter to 0.85;
5. zero outside the template's brain, the same brain that the models see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import GaussianSmooth, SpatialResample
from scipy.ndimage import binary_dilation
from torch import Tensor

from braing3n_core.data.phantom import WHITE_LEVEL
from braing3n_core.data.registration import register
from braing3n_core.data.template import Template, template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import Preset
from braing3n_core.plan import TrainingPlan

VERSION = 1                                                  # part of every cache key: raise it when a result may change
BRIGHTEST = 1.3
_CORE = 0.9                                                  # of the template's highest white-matter share: surely white
_LEAST_CORE = 0.5                                            # part of that core in which the scan must have signal
_WHITE_TOLERANCE = 0.2                                       # phantoms of all scanners lie within; raw intensities do not
_FWHM = 2.355                                                # full width at half maximum of a Gaussian, in deviations
_SAME_GRID_MM = 1e-3


def preprocess(path: Path, plan: TrainingPlan) -> Tensor:
    """(1, D, H, W) float32 in [0, 1.3] on the plan's grid. Raises DataRefused if the file cannot be used."""
    return onto_template(path, plan.model, plan.data.registration)


def onto_template(path: Path, preset: Preset, registration: Literal["affine", "none"]) -> Tensor:
    """(1, D, H, W) float32 in [0, 1.3] on the preset's grid. Raises DataRefused if the file cannot be used.

    The same file gives the same bits. Without registration, a scan that lies on the grid already is not resampled, and one
    that was preprocessed before keeps every value inside the brain.
    """
    array, affine = read_volume(path)
    public = template(preset)
    if registration == "affine":
        affine = np.linalg.inv(register(array, affine)) @ affine
    elif _is_done(array, affine, public):
        return _bounded(array, public)
    return scaled(on_grid(array, affine, preset), public)


def on_grid(array: np.ndarray, affine: np.ndarray, preset: Preset) -> np.ndarray:
    """(D, H, W) with its voxel -> template mm affine -> (D, H, W) of the preset's grid, zero where the scan does not reach."""
    public = template(preset)
    if _on_same_grid(array, affine, public):
        return array
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # As the template was made: a voxel of the grid is an average over its width, not a sample at its centre.
    sigma = [mm / own / _FWHM if mm > own else 0.0 for mm, own in zip(preset.spacing_mm, spacing, strict=True)]
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    placed = MetaTensor(values[None], affine=torch.from_numpy(affine))
    smooth = GaussianSmooth(sigma)(placed) if any(sigma) else placed
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=torch.float32)
    moved = resample(smooth, dst_affine=torch.from_numpy(public.affine), spatial_size=preset.shape)
    return np.array(moved.as_tensor()[0].numpy())


# From here on numpy, not torch: small arrays, and threads that wait for each other where training keeps the cores busy.


def scaled(values: np.ndarray, public: Template) -> Tensor:
    """(D, H, W) in the scanner's units -> (1, D, H, W) in [0, 1.3]: median white matter is 0.85, zero outside the brain.

    Brain is the template's mask widened by one voxel, as in braing3n_core.models.brain. Raises DataRefused if there is no
    signal where white matter should be.
    """
    return _bounded(values * np.float32(WHITE_LEVEL / _white(values, public)), public)


def _white(values: np.ndarray, public: Template) -> float:
    wm = public.wm.numpy()
    core = values[wm > _CORE * wm.max()]
    white = core[core > 0]
    if not len(white) >= _LEAST_CORE * len(core):
        raise DataRefused("no signal where white matter should be; check its orientation, or let the plan register scans")
    return float(np.median(white))


def _bounded(values: np.ndarray, public: Template) -> Tensor:
    brain = binary_dilation(public.mask.numpy())
    return torch.from_numpy(np.clip(values * brain, 0, BRIGHTEST).astype(np.float32))[None]


def _is_done(values: np.ndarray, affine: np.ndarray, public: Template) -> bool:
    """Whether this volume was preprocessed before, as phantoms are: on the grid, in range, white about where it belongs."""
    if not (_on_same_grid(values, affine, public) and values.min() >= 0 and values.max() <= BRIGHTEST):
        return False
    return abs(_white(values, public) / WHITE_LEVEL - 1) <= _WHITE_TOLERANCE


def _on_same_grid(values: np.ndarray, affine: np.ndarray, public: Template) -> bool:
    return values.shape == tuple(public.mask.shape) and np.allclose(affine, public.affine, atol=_SAME_GRID_MM)
