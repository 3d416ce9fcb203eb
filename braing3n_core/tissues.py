"""Tissue volumes in the scanner's own ml: classes by intensity and the template's priors, the coil's field taken out.

T1w and T1ce: expectation maximisation of three Gaussians of log intensity (CSF, grey, white) under the template's maps, with a
cubic field (Wells et al., IEEE TMI 1996; Ashburner and Friston, NeuroImage 2005, without the warp); then fixed thresholds
between the three levels. T2w and FLAIR tell fluid from tissue but not grey from white, so grey and white are not given.
Nothing is learned. The affine's determinant turns ml of template space into ml of the scanner's.

How far to trust them: against label maps of a segmentation network, two sites of one scanner type each, 56 scans each, 2 mm;
mean error and limits of agreement (mean +- 1.96 SD; Bland and Altman, Lancet 1986) in the scanner's ml. Thresholds were chosen
on site-a. `python -m tests.braing3n_core.test_tissues` prints the table again.

    whole brain         site-a  r 0.986  -27.8 (-73.7 to +18.0)     site-b  r 0.994  -31.8 (-66.9 to +3.3)
    grey matter         site-a  r 0.981   -3.6 (-33.2 to +26.1)     site-b  r 0.992   -4.1 (-28.9 to +20.8)
    white matter        site-a  r 0.965  -18.7 (-53.2 to +15.9)     site-b  r 0.982  -23.0 (-50.3 to +4.3)
    lateral ventricles  site-a  r 0.996   -3.1 (-8.9 to +2.7)       site-b  r 0.997   -2.5 (-4.6 to -0.4)

Against the truth of phantoms at 2 mm, 24 of each of two contrasts: lateral ventricles on T1w r 0.98 and 0.98 (0.97 and 0.99 at
4 mm), on FLAIR and T2w 0.8 to 0.9; lesion load on FLAIR r 0.98 and 1.00, half again too much. Lesions on T1w are weak: r 0.7,
and healthy people measure a few ml, because an affine leaves grey matter where the template has white. One patient with
outlines of readers: 0.8 ml on FLAIR where they drew 0.59. `python -m tests.braing3n_core.test_tissues_of_phantoms` prints
these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    binary_opening,
    binary_propagation,
    distance_transform_edt,
    gaussian_filter,
    label,
)

from braing3n_core.data.template import Template, box, template
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS

GRID = PRESETS["small"]                                      # measured at 2 mm whatever grid is trained on
_STEPS = 12
_ORDER = 3                                                   # of the field's polynomial
_THIN = 4                                                    # the field is fitted to every fourth voxel
_FLOOR = 0.02                                                # of every class everywhere: the affine is not the last word
_DARKEST = 0.1                                               # of white: below it is background
_TISSUE_FROM, _WHITE_FROM = 0.2, 0.6                         # between CSF and grey, grey and white (site-a)
_VENTRICLE_TO = 0.6                                          # between ventricular fluid and grey (phantoms, site-a)
_SURE_TO, _NONE_FROM = 0.4, 1.3                              # on the same scale: surely fluid, and no fluid at all (the same)
_HALF = 0.5                                                  # where grey is not told from white: between it and fluid
_FLUID_QUANTILE, _FLUIDS_QUANTILE = 0.05, 0.2                # of the ventricles everybody has: fluid alone; T2w and FLAIR
_LESION_TO = 0.3                                             # between grey and white: darker white matter is hypointense
_LESION_SPREADS = 2.5                                        # FLAIR: brighter than tissue by so many robust deviations
_LEAST_VOXELS = 3                                            # of one FLAIR lesion
_REACH_VOXELS, _NEAR_VOXELS = 9, 2                           # how far ventricles grow; where also their thin parts count
_ELSEWHERE_MM = (                                            # fluid that touches the lateral ventricles and is none of them:
    ((-12.0, 12.0), (-200.0, 2.0), (-200.0, 10.0)),          # third ventricle
    ((-22.0, 22.0), (-200.0, -15.0), (-200.0, 2.0)),         # cisterns around the midbrain
    ((-8.0, 8.0), (-200.0, -12.0), (-200.0, 22.0)),          # cistern under the fornix and behind the splenium
)


@dataclass(frozen=True)
class Volumes:
    """ml in the scanner's space; None where this modality cannot tell."""

    brain_ml: float                      # grey and white matter and ventricles, without the CSF around them
    gm_ml: float | None
    wm_ml: float | None
    csf_ml: float
    ventricles_ml: float                 # lateral
    lesion_ml: float | None


@dataclass(frozen=True)
class _Levels:
    """How bright tissue is in one scan, the field taken out."""

    fluid: float
    grey: float
    white: float


@dataclass(frozen=True)
class _Regions:
    """Where things can be, (D, H, W) bool on GRID."""

    near: np.ndarray                     # brain, with room for what the affine missed
    ventricles: np.ndarray               # lateral ones, however large
    close: np.ndarray                    # of these, near the template's own
    core: np.ndarray                     # ventricle in everybody
    white: np.ndarray                    # white matter in nearly everybody
    lesions: np.ndarray                  # where FLAIR is searched for lesions


def volumes(values: np.ndarray, modality: str, size: float) -> Volumes:
    """Volumes of one stripped scan on GRID (D, H, W), any units; `size` is the scanner's ml in one ml of template space.

    Raises DataRefused if there is no signal where the brain should be.
    """
    public, regions = template(GRID), _regions()
    white = _white(values, public)
    brain = (values > _DARKEST * white) & regions.near
    split = modality in ("T1w", "T1ce")
    if split:
        levels, clean = _classes(values, brain, public)
    else:
        levels, clean = _two_levels(values, white, modality, regions), values
    ml = math.prod(GRID.spacing_mm) / 1000 * size
    inside = brain | regions.core
    ventricles = _ventricles(_ventricular(clean, levels, split, regions) & inside, regions)
    in_ventricles = _shared(clean, levels, inside, regions) if split else float(ventricles.sum())
    around = _is_fluid(clean, levels, modality) & brain & ~ventricles
    tissue = brain & ~around & ~ventricles
    lesions = _lesions(clean, levels, modality, tissue, ventricles, regions)
    bright = clean > levels.grey + _WHITE_FROM * (levels.white - levels.grey)
    return Volumes(
        brain_ml=(float(tissue.sum()) + in_ventricles) * ml,
        gm_ml=float((tissue & ~bright).sum()) * ml if split else None,
        wm_ml=float((tissue & bright).sum()) * ml if split else None,
        csf_ml=(float(around.sum()) + in_ventricles) * ml,
        ventricles_ml=in_ventricles * ml,
        lesion_ml=None if lesions is None else float(lesions.sum()) * ml,
    )


@lru_cache(maxsize=1)
def _regions() -> _Regions:
    public = template(GRID)
    mask, core = public.mask.numpy(), public.lateral.numpy() > 0.5
    elsewhere = np.logical_or.reduce([box(public.affine, mask.shape, sides) for sides in _ELSEWHERE_MM])
    white = gaussian_filter(public.wm.numpy(), 1.0)
    return _Regions(
        near=binary_dilation(mask, iterations=2),
        ventricles=binary_dilation(core, iterations=_REACH_VOXELS) & ~elsewhere,
        close=binary_dilation(core, iterations=_NEAR_VOXELS) & ~elsewhere,
        core=core & ~elsewhere,
        white=(white > 0.85) & (distance_transform_edt(mask) * min(GRID.spacing_mm) > 10),
        lesions=white > 0.4,
    )


def _white(values: np.ndarray, public: Template) -> float:
    core = values[public.wm.numpy() > 0.9]
    bright = core[core > 0]
    if not len(bright) >= 0.5 * len(core):
        raise DataRefused("no signal where white matter should be; check that the scan is whole")
    return float(np.median(bright))


def _classes(values: np.ndarray, brain: np.ndarray, public: Template) -> tuple[_Levels, np.ndarray]:
    """Levels of the three classes, and the scan without its field."""
    maps = (public.csf, public.gm, public.wm)
    prior = np.stack([gaussian_filter(tissue.numpy(), 1.0)[brain] for tissue in maps]) + _FLOOR             # (3, n)
    prior /= prior.sum(0)
    seen, basis = np.log(values[brain].astype(np.float64)), _polynomials(brain)                            # (n,), (n, 20)
    share, field, mean = prior, np.zeros_like(seen), np.zeros(3)
    for step in range(_STEPS):
        clean = seen - field
        mean = (share * clean).sum(1) / share.sum(1)
        spread = (share * (clean - mean[:, None]) ** 2).sum(1) / share.sum(1) + 1e-4
        if step == 0:
            mean[0] = np.quantile(clean, 0.03)               # sulci share their voxels with grey matter: start from pure fluid
        score = -0.5 * (clean - mean[:, None]) ** 2 / spread[:, None] - 0.5 * np.log(spread)[:, None]
        share = prior * np.exp(score - score.max(0))
        share /= share.sum(0)
        if step >= 2:
            field = _field(seen, mean[1:], share[1:] / spread[1:, None], basis)
    fluid, grey, white = np.exp(mean)
    without = values.astype(np.float64)
    without[brain] = np.exp(seen - field)
    grey = max(grey, 1.05 * fluid)                           # a scan without contrast still gets an order
    return _Levels(float(fluid), float(grey), float(max(white, 1.05 * grey))), without


def _field(seen: np.ndarray, mean: np.ndarray, weight: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(n,) log field: the polynomial nearest to what grey and white matter differ from their means by."""
    total = weight.sum(0)
    rest = (weight * (seen - mean[:, None])).sum(0)
    some = slice(None, None, _THIN)
    design = basis[some]
    normal = (design * total[some, None]).T @ design + 1e-3 * np.eye(basis.shape[1])
    field = basis @ np.linalg.solve(normal, design.T @ rest[some])
    return np.asarray(field - field.mean())


def _polynomials(brain: np.ndarray) -> np.ndarray:
    """(n, 20): all products of coordinates in [-1, 1] up to the order, at the voxels of the brain."""
    axes = [2 * place / (side - 1) - 1 for place, side in zip(np.nonzero(brain), brain.shape, strict=True)]
    powers = [(i, j, k) for i in range(_ORDER + 1) for j in range(_ORDER + 1 - i) for k in range(_ORDER + 1 - i - j)]
    return np.stack([axes[0] ** i * axes[1] ** j * axes[2] ** k for i, j, k in powers], axis=1)


def _two_levels(values: np.ndarray, white: float, modality: str, regions: _Regions) -> _Levels:
    """Fluid from inside the ventricles everybody has; grey is taken to be a little brighter than white, as in both."""
    pure = 1 - _FLUIDS_QUANTILE if modality == "T2w" else _FLUIDS_QUANTILE
    fluid = float(np.quantile(values[regions.core], pure))
    return _Levels(fluid, 1.2 * white, white)


def _fluidness(clean: np.ndarray, levels: _Levels) -> np.ndarray:
    """0 at white matter, 1 at pure fluid, whichever of the two is brighter."""
    contrast = levels.fluid - levels.white
    return np.asarray((clean - levels.white) / (contrast if abs(contrast) > 1e-6 * levels.white else 1e-6 * levels.white))


def _is_fluid(clean: np.ndarray, levels: _Levels, modality: str) -> np.ndarray:
    if modality in ("T1w", "T1ce"):
        return np.asarray(clean <= levels.fluid + _TISSUE_FROM * (levels.grey - levels.fluid))
    return np.asarray(_fluidness(clean, levels) > 0.5)


def _ventricular(clean: np.ndarray, levels: _Levels, split: bool, regions: _Regions) -> np.ndarray:
    """Where there is more fluid than tissue, by the brightness of fluid inside the ventricles: that in sulci is never pure."""
    if not split:
        return np.asarray(_fluidness(clean, levels) > _HALF)
    return _darker(clean, levels, regions, _VENTRICLE_TO)


def _darker(clean: np.ndarray, levels: _Levels, regions: _Regions, part: float) -> np.ndarray:
    fluid = _pure(clean, levels, regions)
    return np.asarray(clean < fluid + part * (levels.grey - fluid))


def _pure(clean: np.ndarray, levels: _Levels, regions: _Regions) -> float:
    return min(float(np.quantile(clean[regions.core], _FLUID_QUANTILE)), levels.fluid)


def _shared(clean: np.ndarray, levels: _Levels, inside: np.ndarray, regions: _Regions) -> float:
    """Voxels of fluid in and around what is surely ventricle, those at its edge by their share."""
    sure = _ventricles(_darker(clean, levels, regions, _SURE_TO) & inside, regions)
    near = binary_dilation(sure) & regions.ventricles
    fluid = _pure(clean, levels, regions)
    none = fluid + _NONE_FROM * (levels.grey - fluid)
    return float(np.clip((none - clean[near]) / (none - fluid), 0, 1).sum())


def _ventricles(fluid: np.ndarray, regions: _Regions) -> np.ndarray:
    """What of the fluid hangs together with the ventricles everybody has, not through sulci a voxel wide."""
    inside = fluid & regions.ventricles
    thick = binary_opening(inside) | (inside & regions.close)
    return np.asarray(binary_propagation(thick & regions.core, mask=thick))


def _lesions(
    clean: np.ndarray, levels: _Levels, modality: str, tissue: np.ndarray, ventricles: np.ndarray, regions: _Regions
) -> np.ndarray | None:
    if modality == "T1w":
        inside = regions.white & ~binary_dilation(ventricles, iterations=2)
        return np.asarray(inside & (clean < levels.grey + _LESION_TO * (levels.white - levels.grey)))
    if modality == "FLAIR":
        known = clean[tissue]
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - middle)))
        pieces, _ = label((clean > middle + _LESION_SPREADS * spread) & regions.lesions)
        return np.asarray((np.bincount(pieces.ravel()) >= _LEAST_VOXELS)[pieces] & (pieces > 0))
    return None
