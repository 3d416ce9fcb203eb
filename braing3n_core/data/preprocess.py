"""One scan onto a preset's grid: where it lies, what of it is brain, how sharp it is, how bright it is. MONAI resamples.

1. read; 2. the brain: stripped already, by the site's own command, or found in the head; 3. affine to the template, or none;
4. N4, if asked for; 5. smooth to the grid's voxel, resample once; 6. a T1w as even as the template; 7. white matter to its
modality's level; 8. zero outside the template's brain, the same brain that the models see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import Tensor

from braing3n_core.data.bias import without_field
from braing3n_core.data.contrast import WHITE
from braing3n_core.data.evenness import evened
from braing3n_core.data.mask_command import masked_by
from braing3n_core.data.registration import register
from braing3n_core.data.strip import brain_in_head
from braing3n_core.data.template import Template, template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import Preset
from braing3n_core.plan import T1W, TrainingPlan

BRIGHTEST = 1.3
_CORE = 0.9                                                  # of the template's highest white-matter share: surely white
_LEAST_CORE = 0.5                                            # part of that core in which the scan must have signal
_WHITE_TOLERANCE = 0.2                                       # phantoms of all scanners lie within; raw intensities do not
_FWHM = 2.355                                                # full width at half maximum of a Gaussian, in deviations
_SAME_GRID_MM = 1e-3
Stripped = Literal["before", "command", "here"]


@dataclass(frozen=True)
class Method:
    """How a scan becomes a volume. All of it is in the name of what is cached."""

    preset: Preset
    registration: Literal["affine", "none"] = "affine"
    modality: str = "T1w"                                    # one of braing3n_core.data.scans.MODALITIES
    n4: bool = False
    mask_command: str = ""                                   # the site's own; empty: none

    @classmethod
    def of(cls, plan: TrainingPlan, modality: str = "T1w") -> Method:
        """What a plan asks for."""
        return cls(plan.model, plan.data.registration, modality)


@dataclass(frozen=True)
class Placed:
    """A scan whose place in the template is known."""

    raw: np.ndarray                                          # (D, H, W) as read
    array: np.ndarray                                        # (D, H, W) scanner's units, zero outside the brain
    affine: np.ndarray                                       # (4, 4) voxel -> template mm
    size: float                                              # scanner's ml in one ml of template space
    stripped: Stripped                                       # who took the skull away
    done: bool                                               # preprocessed before, as phantoms are


def preprocess(path: Path, plan: TrainingPlan) -> Tensor:
    """(1, D, H, W) float32 in [0, 1.3] on the plan's grid. Raises DataRefused if the file cannot be used."""
    return onto_template(path, plan.model, plan.data.registration)


def onto_template(path: Path, preset: Preset, registration: Literal["affine", "none"]) -> Tensor:
    """(1, D, H, W) float32 in [0, 1.3] on the preset's grid, of a T1w scan. Raises DataRefused if the file cannot be used.

    The same file gives the same bits. Without registration, a scan that lies on the grid already is not resampled, and one
    that was preprocessed before keeps every value inside the brain.
    """
    method = Method(preset, registration)
    return volume_of(place(path, method), method)


def place(path: Path, method: Method) -> Placed:
    """Read a scan, find its brain and its place. Raises DataRefused if it cannot be used."""
    raw, affine = read_volume(path)
    array = raw
    stripped: Stripped = "before"
    if method.mask_command:
        array, stripped = masked_by(method.mask_command, raw, affine), "command"
    if method.registration == "none":
        done = _is_done(array, affine, template(method.preset), method.modality)
        return Placed(raw, array, affine, 1.0, stripped, done)
    try:
        matrix = register(array, affine, method.modality)
    except DataRefused:
        if stripped == "command":
            raise
        array, stripped = raw * brain_in_head(raw, affine, method.modality), "here"
        matrix = register(array, affine, method.modality)
    if method.n4:
        array = without_field(array, np.linalg.norm(affine[:3, :3], axis=0))
    size = float(np.linalg.det(matrix[:3, :3]))
    return Placed(raw, array, np.linalg.inv(matrix) @ affine, size, stripped, False)


def volume_of(placed: Placed, method: Method) -> Tensor:
    """(1, D, H, W) float32 in [0, 1.3] on the method's grid."""
    public = template(method.preset)
    if placed.done:
        return _bounded(placed.array, public)
    seen = on_grid(placed.array, placed.affine, method.preset)
    return scaled(evened(seen, public) if method.modality == T1W else seen, public, method.modality)


def on_grid(array: np.ndarray, affine: np.ndarray, preset: Preset) -> np.ndarray:
    """(D, H, W) with its voxel -> template mm affine -> (D, H, W) of the preset's grid, zero where the scan does not reach."""
    public = template(preset)
    if _on_same_grid(array, affine, public):
        return array
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # As the template was made: a voxel of the grid is an average over its width, not a sample at its centre.
    # MONAI takes longer to load than the rest of what a command needs, and most commands resample nothing.
    from monai.data import MetaTensor  # noqa: PLC0415
    from monai.transforms import SpatialResample  # noqa: PLC0415

    sigma = [mm / own / _FWHM if mm > own else 0.0 for mm, own in zip(preset.spacing_mm, spacing, strict=True)]
    smooth = gaussian_filter(array.astype(np.float32, copy=False), sigma, mode="constant") if any(sigma) else array
    values = torch.from_numpy(np.ascontiguousarray(smooth, np.float32))
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=torch.float32)
    placed = MetaTensor(values[None], affine=torch.from_numpy(affine))
    moved = resample(placed, dst_affine=torch.from_numpy(public.affine), spatial_size=preset.shape)
    return np.array(moved.as_tensor()[0].numpy())


# From here on numpy, not torch: small arrays, and threads that wait for each other where training keeps the cores busy.


def scaled(values: np.ndarray, public: Template, modality: str = "T1w") -> Tensor:
    """(D, H, W) in the scanner's units -> (1, D, H, W) in [0, 1.3]: median white matter at WHITE, zero outside the brain.

    Brain is the template's mask widened by one voxel, as in braing3n_core.models.brain. Raises DataRefused if there is no
    signal where white matter should be.
    """
    return _bounded(values * np.float32(WHITE[modality] / _white(values, public)), public)


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


def _is_done(values: np.ndarray, affine: np.ndarray, public: Template, modality: str) -> bool:
    """Whether this volume was preprocessed before, as phantoms are: on the grid, in range, white about where it belongs."""
    if not (_on_same_grid(values, affine, public) and values.min() >= 0 and values.max() <= BRIGHTEST):
        return False
    return abs(_white(values, public) / WHITE[modality] - 1) <= _WHITE_TOLERANCE


def _on_same_grid(values: np.ndarray, affine: np.ndarray, public: Template) -> bool:
    return values.shape == tuple(public.mask.shape) and np.allclose(affine, public.affine, atol=_SAME_GRID_MM)
