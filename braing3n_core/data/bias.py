"""The receive field of the coil, divided out: N4 as SimpleITK has it (Tustison et al., IEEE TMI 2010)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own manual uses

_SHRINK_MM = 5.0                                             # the field is smooth over centimetres
_STEPS = [30, 20, 10]                                        # most iterations of each level


def without_field(array: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(D, H, W) with the smooth field of its positive voxels divided out. One thread: the same scan gives the same bits."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    image.SetSpacing([float(mm) for mm in spacing_mm[::-1]])
    factors = [max(1, int(_SHRINK_MM / mm)) for mm in spacing_mm[::-1]]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetNumberOfThreads(1)
    correction.SetMaximumNumberOfIterations(_STEPS)
    correction.Execute(sitk.Shrink(image, factors), sitk.Shrink(sitk.Cast(image > 0, sitk.sitkUInt8), factors))
    field = np.exp(sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(image)))
    return np.asarray(np.where(array > 0, array / field, array), np.float32)
