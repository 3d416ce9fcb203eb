"""Slices as PNG inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.image import imsave

_BRIGHT = 99.5                                               # percentile shown as white


def png(sheet: np.ndarray) -> str:
    """(rows, columns) of intensities -> grey PNG, base64."""
    top = float(np.percentile(sheet, _BRIGHT)) or 1.0
    grey = (255 * np.clip(sheet / top, 0, 1)).astype(np.uint8)
    return encoded(np.repeat(grey[..., None], 3, axis=2))


def encoded(pixels: np.ndarray) -> str:
    """(rows, columns, 3 or 4) bytes -> PNG, base64."""
    content = io.BytesIO()
    imsave(content, pixels, format="png")
    return base64.b64encode(content.getvalue()).decode("ascii")


def slices(values: np.ndarray, part: tuple[float, float], count: int) -> np.ndarray:
    """(D, H, W) in RAS -> (rows, columns): `count` slices between two parts of each axis; a row for each plane."""
    planes = []
    for axis in (2, 1, 0):
        places = np.linspace(part[0], part[1], count) * (values.shape[axis] - 1)
        planes.append([np.take(values, round(place), axis=axis).T[::-1] for place in places])
    wide, high = (max(one.shape[side] for row in planes for one in row) for side in (1, 0))
    return np.vstack([np.hstack([_padded(one, high, wide) for one in row]) for row in planes])


def _padded(one: np.ndarray, high: int, wide: int) -> np.ndarray:
    return np.pad(one, ((0, high - one.shape[0]), (0, wide - one.shape[1])))
