"""Where a scan lies in the template: one affine, found by correlation with the template in the scan's own contrast.

Deterministic: every voxel of the brain counts, in one thread and in one order, so nothing is sampled and the same scan gives
the same bits. About a second a scan, because the match is made on 4 mm voxels whatever the plan's grid is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own manual uses

from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS

LEAST_DICE = 0.8                                             # brains that register reach 0.91
LEAST_CORRELATION = 0.75                                     # brains reach 0.83 to 0.94; a head with its skull on, 0.65
LEAST_INSIDE = 0.48                                          # the same inside the brain alone: brains 0.54 to 0.95, a ball 0.42
_DETERMINANT = (0.3, 2.0)                                    # template mm -> scan mm; adults are 0.6 to 0.9 of the template
_LEAST_AXIS = 0.5                                            # no axis may shrink below this, nor be mirrored
_GRID = "tiny"                                               # the preset whose 4 mm grid the match is made on
_BRIGHT = 98                                                 # percentile of the positive voxels that becomes 1
_BRAIN = 0.1                                                 # of that: dimmer is background
_MARGIN_VOXELS = 2                                           # around the template's brain: the edge must be seen
_STEP_MM = 4.0
_LEAST_STEP_MM = 0.02
_STEPS = 100
_RELAXATION = 0.8                                            # less stops short of turns above ten degrees
_SHRINK = [2, 1]
_SIGMA_MM = [4.0, 2.0]
_LEAST_SHARE = 0.94                                          # of the signal on the brain or 8 mm around it
_CONTRAST = {                                                # brightness of CSF, grey, white; T1w and T1ce: the template itself
    "T2w": (1.0, 0.55, 0.35),
    "FLAIR": (0.1, 0.9, 0.7),
}
_HEAD_SCALES = (0.8, 0.9)                                    # template mm -> scan mm: adults' cube roots of 0.5 to 0.8
_HEAD_SHIFTS_MM = (-25.0, 0.0, 25.0)                         # a neck pulls the centre of mass down, a scalp anywhere


def register(array: np.ndarray, affine: np.ndarray, modality: str = "T1w") -> np.ndarray:
    """The (4, 4) matrix that takes template mm to scan mm, for one skull-stripped scan (D, H, W) with its voxel -> mm affine.

    Raises DataRefused if the scan's brain does not end up where the template's is (Dice < 0.8), or only by a transform that no
    head needs, or if there is signal around it, as a skull leaves.
    """
    fixed, inside = _template(modality)
    moving = _moving(array, affine)
    transform = _start(fixed, moving)
    _improve(_method(inside), fixed, moving, transform)
    _check(fixed, inside, moving, transform)
    return _matrix(transform)


def register_head(array: np.ndarray, affine: np.ndarray, modality: str) -> np.ndarray:
    """As `register`, for a head whose scalp is gone or dim: only the template's brain counts, from several starts.

    Good to about a centimetre, enough to find the brain in the head. Raises DataRefused if no start leads to one.
    """
    fixed, _ = _template(modality)
    inside = sitk.BinaryDilate(_brain(), [1] * 3)
    moving = _moving(array, affine)
    found = [_from(start, fixed, inside, moving) for start in _head_starts(_start(fixed, moving))]
    best = min(found, key=lambda pair: pair[0])[1]
    _improve(_method(inside), fixed, moving, best)
    _check_shape(best)
    return _matrix(best)


def _head_starts(centred: sitk.AffineTransform) -> list[sitk.AffineTransform]:
    starts = []
    for scale in _HEAD_SCALES:
        for shift in _HEAD_SHIFTS_MM:
            start = sitk.AffineTransform(centred)
            start.SetMatrix((np.eye(3) * scale).ravel().tolist())
            start.SetTranslation((np.array(centred.GetTranslation()) + np.array([0.0, 0.0, shift])).tolist())
            starts.append(start)
    return starts


def _from(
    start: sitk.AffineTransform, fixed: sitk.Image, inside: sitk.Image, moving: sitk.Image
) -> tuple[float, sitk.AffineTransform]:
    """A short, coarse search: how well it ended (less is better) and where."""
    method = _method(inside)
    method.SetOptimizerAsRegularStepGradientDescent(_STEP_MM, 0.5, 30, _RELAXATION)
    method.SetShrinkFactorsPerLevel([3])
    method.SetSmoothingSigmasPerLevel([6.0])
    _improve(method, fixed, moving, start)
    return float(method.GetMetricValue()), start


def _improve(
    method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image, transform: sitk.AffineTransform
) -> None:
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:                            # no overlap at all: ITK has many words for it
        raise DataRefused(_refusal("the two do not overlap")) from error


def _method(inside: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(inside)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(_STEP_MM, _LEAST_STEP_MM, _STEPS, _RELAXATION)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_SHRINK)
    method.SetSmoothingSigmasPerLevel(_SIGMA_MM)
    return method


@lru_cache(maxsize=4)
def _template(modality: str) -> tuple[sitk.Image, sitk.Image]:
    """The template on the 4 mm grid as a scanner of this modality sees it, and the voxels that count."""
    public = template(PRESETS[_GRID])
    levels = _CONTRAST.get(modality)
    if levels is None:
        seen = public.t1.numpy()
    else:
        maps = (public.csf.numpy(), public.gm.numpy(), public.wm.numpy())
        seen = sum(level * tissue for level, tissue in zip(levels, maps, strict=True)) * public.mask.numpy()
    return _image(seen, public.affine), sitk.BinaryDilate(_brain(), [_MARGIN_VOXELS] * 3)


def _brain() -> sitk.Image:
    public = template(PRESETS[_GRID])
    return sitk.Cast(_image(public.mask.numpy(), public.affine), sitk.sitkUInt8)


def _moving(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """The scan in [0, 1], smoothed and thinned to about the template's voxels."""
    bright = float(np.percentile(array[array > 0], _BRIGHT)) if (array > 0).any() else 0.0
    if not bright > 0:
        raise DataRefused(_refusal("it has no bright voxel"))
    image = _image(np.clip(array / bright, 0, 1), affine)
    target = PRESETS[_GRID].spacing_mm
    factors = [max(1, round(mm / own)) for mm, own in zip(target, image.GetSpacing(), strict=True)]
    if max(factors) == 1:
        return image
    variance = [(mm / 2.355) ** 2 if factor > 1 else 0.0 for mm, factor in zip(target, factors, strict=True)]
    return sitk.Shrink(sitk.DiscreteGaussian(image, variance), factors)


def _start(fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform:
    """Brain on brain: centres of mass together, one scale from the two volumes, no turn."""
    ours, theirs = (sitk.Cast(image > _BRAIN, sitk.sitkFloat32) for image in (fixed, moving))
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    centred = sitk.AffineTransform(sitk.CenteredTransformInitializer(ours, theirs, sitk.AffineTransform(3), moments))
    sizes = [float(sitk.GetArrayViewFromImage(image).sum()) * float(np.prod(image.GetSpacing())) for image in (ours, theirs)]
    start = sitk.AffineTransform(3)
    start.SetCenter(centred.GetCenter())
    start.SetTranslation(centred.GetTranslation())
    start.SetMatrix((np.eye(3) * (sizes[1] / sizes[0]) ** (1 / 3)).ravel().tolist())
    return start


def _check(fixed: sitk.Image, inside: sitk.Image, moving: sitk.Image, transform: sitk.AffineTransform) -> None:
    _check_shape(transform)
    moved = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    public, seen = sitk.GetArrayFromImage(fixed), sitk.GetArrayFromImage(inside) > 0
    brain, mask = moved > _BRAIN, sitk.GetArrayFromImage(_brain()) > 0
    overlap = 2 * float((brain & mask).sum()) / float(brain.sum() + mask.sum())
    if not overlap >= LEAST_DICE:
        raise DataRefused(_refusal(f"its brain overlaps the template's with Dice {overlap:.2f}, needed {LEAST_DICE}"))
    alike = float(np.corrcoef(moved[seen], public[seen])[0, 1])
    if not alike >= LEAST_CORRELATION:
        raise DataRefused(_refusal(f"it correlates with the template at {alike:.2f}, needed {LEAST_CORRELATION}"))
    inner = float(np.corrcoef(moved[mask], public[mask])[0, 1])
    if not inner >= LEAST_INSIDE:
        raise DataRefused(_refusal(f"inside the brain it correlates with the template at {inner:.2f}, needed {LEAST_INSIDE}"))
    share = float(moved[seen].sum() / moved.sum())
    if not share >= _LEAST_SHARE:
        raise DataRefused(_refusal(f"{100 * (1 - share):.0f} % of its signal lies around the brain, as a skull does"))


def _check_shape(transform: sitk.AffineTransform) -> None:
    axes = np.array(transform.GetMatrix()).reshape(3, 3)
    determinant, least = float(np.linalg.det(axes)), float(np.linalg.svd(axes, compute_uv=False).min())
    if not (_DETERMINANT[0] <= determinant <= _DETERMINANT[1] and least >= _LEAST_AXIS):
        raise DataRefused(_refusal(f"it would have to change its size by a factor of {determinant:.2f}"))


def _refusal(why: str) -> str:
    return f"did not register to the template: {why}; check that it is skull-stripped, upright and a whole adult brain"


def _matrix(transform: sitk.AffineTransform) -> np.ndarray:
    """A point y goes to A (y - centre) + centre + shift."""
    axes = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, centre + shift - axes @ centre
    return matrix


def _image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """(D, H, W) as an ITK image whose physical space is RAS, not ITK's LPS: all images here agree, so no axis flips."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image
