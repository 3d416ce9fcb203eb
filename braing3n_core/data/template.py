"""The public template on a preset's grid, and the regions that follow from it. The only file that knows nilearn.

The template is the MNI ICBM152 2009a nonlinear asymmetric average with its grey- and white-matter maps, as it ships inside
nilearn (Fonov et al., NeuroImage 2011); nothing is downloaded. BIDS calls this space MNI152NLin2009aAsym.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label
from torch import Tensor

from braing3n_core.kept import kept
from braing3n_core.models.presets import Preset, Sides

SPACE = "MNI152NLin2009aAsym"
_CENTRE_MM = (0.0, -18.0, 12.0)                              # middle of the template's brain
_SOURCE_MM = 2                                               # resolution the maps are read at
_DEEP_MM = 22.0                                              # lateral ventricles lie deeper than any sulcus
_VENTRICLE_BOX_MM = ((-45.0, 45.0), (-60.0, 50.0), (-15.0, 35.0))
_THIRD_MM = ((-5.0, 5.0), (-200.0, 5.0), (-200.0, 10.0))     # third ventricle
_MARGIN_MM = 6.0                                             # the region reaches this far beyond the template's own CSF


@dataclass(frozen=True)
class Template:
    """The template on one grid; tensors are (D, H, W) in RAS order, maps in [0, 1]."""

    affine: np.ndarray                                       # (4, 4): voxel -> mm
    t1: Tensor                                               # skull-stripped, 0 outside the brain, maximum 1
    gm: Tensor
    wm: Tensor
    csf: Tensor
    mask: Tensor                                             # bool
    ventricles: Tensor                                       # bool: where the CSF of an enlarged ventricle may be
    lateral: Tensor                                          # the lateral ventricles alone, share of each voxel


def grid_affine(shape: Sides, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) voxel -> mm of a grid centred on the brain, axes right, anterior, superior."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [centre - (n - 1) * mm / 2 for centre, n, mm in zip(_CENTRE_MM, shape, spacing_mm, strict=True)]
    return affine


@lru_cache(maxsize=4)
def template(preset: Preset) -> Template:
    """The template on the preset's grid, averaged over each voxel rather than sampled at its centre."""
    grid = (preset.shape, preset.spacing_mm)
    made_from = repr((grid, [version(name) for name in ("nilearn", "scipy", "numpy")])).encode() + Path(__file__).read_bytes()
    return Template(grid_affine(*grid), **kept("template", made_from, lambda: _made(preset)))


def _made(preset: Preset) -> dict[str, Tensor]:
    """The template's tensors by name, from nilearn's files."""
    # nilearn takes longer to load than what is kept of it.
    from nilearn.datasets import (  # noqa: PLC0415
        load_mni152_brain_mask,
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    affine = grid_affine(preset.shape, preset.spacing_mm)
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask)
    sources = [loader(resolution=_SOURCE_MM) for loader in loaders]
    t1, gm, wm, mask = (_onto_grid(source, source.get_fdata(), affine, preset) for source in sources)
    inside = mask > 0.5
    region, lateral = (_onto_grid(sources[0], part, affine, preset) for part in _ventricles(sources))
    return {
        "t1": (t1 / t1.max()).clamp(0, 1) * inside,
        "gm": gm.clamp(0, 1),
        "wm": wm.clamp(0, 1),
        "csf": (mask - gm - wm).clamp(0, 1),
        "mask": inside,
        "ventricles": region > 0.5,
        "lateral": lateral.clamp(0, 1),
    }


def box(affine: np.ndarray, shape: tuple[int, ...], sides_mm: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(D, H, W) bool: voxels whose place in mm lies between the sides, given for left-right, back-front and low-high."""
    mm = (affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]).reshape(3, *shape)
    return np.asarray(np.logical_and.reduce([(mm[a] > low) & (mm[a] < high) for a, (low, high) in enumerate(sides_mm)]))


def _onto_grid(like: Any, values: np.ndarray, affine: np.ndarray, preset: Preset) -> Tensor:  # noqa: ANN401 - nibabel is untyped
    """`values` on the source grid -> (D, H, W), smoothed by the target voxel so that nothing aliases."""
    from nilearn.image import new_img_like, resample_img  # noqa: PLC0415 - as above

    sigma = [max(mm / _SOURCE_MM, 1.0) / 2.355 if mm > _SOURCE_MM else 0.0 for mm in preset.spacing_mm]
    image = new_img_like(like, gaussian_filter(np.asarray(values, np.float32), sigma))
    target: dict[str, Any] = {"target_affine": affine, "target_shape": preset.shape, "interpolation": "linear"}
    with warnings.catch_warnings():                          # a mask becomes the share of each voxel, which is what is wanted
        warnings.filterwarnings("ignore", "Resampling binary images", UserWarning)
        resampled = resample_img(image, **target, force_resample=True, copy_header=True)
    return torch.from_numpy(np.asarray(resampled.get_fdata(), np.float32).copy())


def _ventricles(sources: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Where an enlarged ventricle may reach and no sulcus does; and the lateral ventricles, as shares of fluid.

    The first is deep CSF near the midline, widened. The second is the largest piece of it without the third ventricle: the
    cisterns behind the midbrain do not touch it.
    """
    _, gm, wm, mask = (np.asarray(source.get_fdata()) for source in sources)
    brain, affine = mask > 0.5, sources[0].affine
    middle, third = (box(affine, brain.shape, sides) for sides in (_VENTRICLE_BOX_MM, _THIRD_MM))
    depth = distance_transform_edt(brain) * _SOURCE_MM
    core = brain & (gm + wm < 0.4) & (depth > _DEEP_MM) & middle
    wide = binary_dilation(core, iterations=round(_MARGIN_MM / _SOURCE_MM)) & middle & (depth > _DEEP_MM - 8)
    fluid = np.clip(mask - gm - wm, 0, 1)
    pieces, _ = label(wide & (fluid > 0.5) & ~third)
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return wide.astype(np.float32), (fluid * largest).astype(np.float32)

