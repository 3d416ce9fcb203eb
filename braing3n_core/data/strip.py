"""The brain in a head that nobody stripped: the template's brain, laid over the head and cut back to what looks like tissue.

Good enough to register, to measure roughly and for a person to see a brain; a site that has a better tool names it
(`--brain-mask-command`). T1w heads keep some meninges and lose some cortex at the crown.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import (
    affine_transform,
    binary_dilation,
    binary_fill_holes,
    binary_opening,
    distance_transform_edt,
    label,
)

from braing3n_core.data.registration import register_head
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS

_COARSE_MM = 3.0                                             # skull and scalp are thicker than that
_AIR = 0.15                                                  # of the brightness in the middle of the head
_SCALP_MM = 11.0                                             # from the air to the inside of the skull, about
_FAT = 1.35                                                  # brighter than brain; but lesions deep inside are kept
_FAT_DEPTH_MM = 30.0
_TISSUE = 0.4                                                # of the middle's brightness: darker is bone or fluid
_MARGIN_VOXELS = 2                                           # of 2 mm: how far a brain may reach beyond the template's


def brain_in_head(array: np.ndarray, affine: np.ndarray, modality: str) -> np.ndarray:
    """(D, H, W) bool: the brain of a head with its voxel -> mm affine. Raises DataRefused if none is found."""
    small, place = _coarse(np.maximum(array, 0), affine)
    level = _level(small)
    depth = _depth(small > _AIR * level, np.linalg.norm(place[:3, :3], axis=0))
    fat = binary_dilation((small > _FAT * level) & (depth < _FAT_DEPTH_MM))
    inner = np.where((depth > _SCALP_MM) & ~fat, np.minimum(small, _FAT * level), 0.0)
    matrix = register_head(inner, place, modality)
    tissue = (small > _TISSUE * level) & ~fat & _expected(small.shape, place, matrix)
    brain = _connected(tissue)
    onto = np.linalg.inv(place) @ affine
    return np.asarray(affine_transform(brain.astype(np.float32), onto, output_shape=array.shape, order=1) > 0.5)


def _coarse(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over blocks of about 3 mm, and where the blocks lie."""
    factors = [max(1, int(_COARSE_MM / mm)) for mm in np.linalg.norm(affine[:3, :3], axis=0)]
    sides = [n // factor for n, factor in zip(array.shape, factors, strict=True)]
    whole = array[tuple(slice(0, n * factor) for n, factor in zip(sides, factors, strict=True))]
    (d, h, w), (p, q, r) = sides, factors
    scale = np.diag([*factors, 1.0])
    scale[:3, 3] = [(factor - 1) / 2 for factor in factors]
    return whole.reshape(d, p, h, q, w, r).mean((1, 3, 5)), affine @ scale


def _level(small: np.ndarray) -> float:
    """Brightness of the middle of the head, where brain is."""
    middle = small[tuple(slice(int(0.3 * n), int(np.ceil(0.7 * n))) for n in small.shape)]
    bright = middle[middle > 0]
    if not len(bright):
        raise DataRefused("there is nothing in the middle of the picture; check the scan")
    return float(np.median(bright))


def _depth(head: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Distance in mm from the air around the head; where the picture ends, it is taken to go on as it does there."""
    # Plane by plane, because the neck is cut; before pieces are told apart, because a dark skull parts brain from scalp.
    filled = np.stack([binary_fill_holes(plane) for plane in head.transpose(2, 0, 1)], axis=2)
    parts, _ = label(filled)
    sizes = np.bincount(parts.ravel())[1:]
    if not len(sizes):
        raise DataRefused("there is no head in the picture; check the scan")
    largest = np.pad(parts == sizes.argmax() + 1, 1, mode="edge")
    return np.asarray(distance_transform_edt(largest, sampling=spacing_mm)[1:-1, 1:-1, 1:-1])


def _expected(shape: tuple[int, ...], place: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Where the template says that brain may be, on the coarse grid."""
    public = template(PRESETS["small"])
    wide = binary_dilation(public.mask.numpy(), iterations=_MARGIN_VOXELS).astype(np.float32)
    onto = np.linalg.inv(public.affine) @ np.linalg.inv(matrix) @ place
    return np.asarray(affine_transform(wide, onto, output_shape=shape, order=1) > 0.5)


def _connected(tissue: np.ndarray) -> np.ndarray:
    """The largest piece once thin bridges to scalp and eyes are cut, grown back to its edge, without holes."""
    parts, _ = label(binary_opening(tissue))
    sizes = np.bincount(parts.ravel())[1:]
    if not len(sizes):
        raise DataRefused("no brain was found in the head; strip the skull, or name a --brain-mask-command")
    grown = binary_dilation(parts == sizes.argmax() + 1, iterations=2) & tissue
    closed = binary_dilation(grown)
    return np.asarray(np.stack([binary_fill_holes(plane) for plane in closed.transpose(2, 0, 1)], axis=2))
