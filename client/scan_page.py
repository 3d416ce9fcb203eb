"""One scan's page: before and after, the brain's outline, the measures, or why it was left out. Self-contained; never leaves.

Pictures are in template space, slices by rows: axial, coronal, sagittal. The person's left is on the left.
"""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy.ndimage import affine_transform, binary_erosion

from braing3n_core.data.prepared import Computed
from braing3n_core.data.preprocess import Method
from braing3n_core.data.scans import Excluded
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically
from braing3n_core.models.presets import PRESETS
from client.index_page import picture_of
from client.measures import measures_of
from client.pictures import encoded, png, slices

_GRID = PRESETS["small"]                                     # pictures are at 2 mm whatever is trained on
_SLICES = 7
_PART = (0.22, 0.78)                                         # of each axis: where the brain is
_BRIGHT = 99.5                                               # percentile that the outline takes for white
_STRIPPED = {"before": "before, by the hospital", "command": "by the site's own command", "here": "here, from the template"}
_PAGES = Environment(loader=PackageLoader("client", "pages"), autoescape=True, undefined=StrictUndefined)


def write_page(page: Path, file: str, method: Method, computed: Computed) -> None:
    """The page of a scan that was prepared."""
    placed = computed.placed
    before, after = _seen(placed.raw, placed.affine), _seen(placed.array, placed.affine)
    brain = after > 0.05 * np.percentile(after, _BRIGHT)
    notes = {
        "modality": method.modality,
        "skull taken away": _STRIPPED[placed.stripped],
        "overlap with the template's brain": f"Dice {computed.record['overlap']:.3f}",
        "size in the scanner": f"{100 * placed.size:.0f} % of the template's",
    }
    before_png, after_png = (png(slices(one, _PART, _SLICES)) for one in (before, after))
    pictures = {"before": before_png, "after": after_png, "outline": _outline(brain)}
    _keep(picture_of(page), base64.b64decode(png(_small(after))))
    _write(page, title=file, notes=notes, measures=measures_of(computed.record["volumes"]), pictures=pictures, excluded=None)


def write_excluded(page: Path, file: str, reason: str, path: Path) -> None:
    """The page of a scan that was left out, with its middle slices if it can be read at all."""
    pictures = {}
    with contextlib.suppress(DataRefused):
        values, affine = read_volume(path)
        pictures = {"before": png(_middle(values, affine))}
    _write(page, title=file, notes={}, measures=[], pictures=pictures, excluded=Excluded(file, reason))


def _write(page: Path, **content: object) -> None:
    _keep(page, _PAGES.get_template("scan.html.j2").render(**content).encode("utf-8"))


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, content)


def _seen(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(D, H, W) at template mm -> on the pictures' grid."""
    onto = np.linalg.inv(affine) @ template(_GRID).affine
    return np.asarray(affine_transform(array, onto, output_shape=_GRID.shape, order=1))


def _small(values: np.ndarray) -> np.ndarray:
    """(D, H, W) -> the middle axial and sagittal slices side by side."""
    return np.hstack([np.take(values, values.shape[axis] // 2, axis=axis).T[::-1] for axis in (2, 0)])


def _middle(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The three middle slices of a scan as it lies on disk, voxels square."""
    mm = np.linalg.norm(affine[:3, :3], axis=0)
    sides = [max(1, round(n * s / 2)) for n, s in zip(values.shape, mm, strict=True)]
    square = affine_transform(
        values, np.diag([n / side for n, side in zip(values.shape, sides, strict=True)]), output_shape=tuple(sides), order=1
    )
    slices = [np.take(square, square.shape[axis] // 2, axis=axis).T[::-1] for axis in (2, 1, 0)]
    high = max(one.shape[0] for one in slices)
    return np.hstack([np.pad(one, ((0, high - one.shape[0]), (0, 4))) for one in slices])


def _outline(brain: np.ndarray) -> str:
    """Transparent but for the edge of the brain in every slice."""
    sheet = slices(brain.astype(np.uint8), _PART, _SLICES) > 0
    edge = sheet & ~binary_erosion(sheet)
    colours = np.zeros((*edge.shape, 4), np.uint8)
    colours[edge] = (255, 90, 60, 255)
    return encoded(colours)
