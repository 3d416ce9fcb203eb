"""Slices as pictures: three planes of a volume, differences, a sheet of every slice for the scroller, the README's picture.

Neurological convention throughout: the person's left is on the left of the picture. Only synthetic volumes come here.
"""

# (D H W) = (x right, y anterior, z superior), RAS

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from braing3n_core.data.template import template
from braing3n_core.files import write_atomically
from braing3n_core.models.presets import Preset

CONVENTION = "neurological: left is left"
PLANES = ("axial", "coronal", "sagittal")
WINDOW = 1.0                                                 # intensity shown as white; white matter is near 0.85
_MARGIN = 2                                                  # voxels around the template's brain
_SHEET_COLUMNS = 8
FULL_COLOUR = 0.3                                            # intensity difference shown in full colour
_QUALITY = 88                                                # JPEG
_CHANGE = LinearSegmentedColormap.from_list("change", ["#a6e1ff", "#1f7fd6", "#000000", "#dd6a1c", "#ffdf9e"], N=511)

Picture = NDArray[np.float32]                                # (rows, columns), 0..1, first row on top
Colours = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """Where the brain lies on a preset's grid, and the three cuts that show its ventricles."""

    box: tuple[slice, slice, slice]
    cuts: tuple[int, int, int]                               # x, y, z inside the box

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels of the box along x, y and z."""
        x, y, z = (int(part.stop - part.start) for part in self.box)
        return x, y, z

    def crop(self, volume: Tensor) -> NDArray[np.float32]:
        """(..., D, H, W) with leading ones -> the box of it, as an array."""
        return np.asarray(volume.detach().cpu().reshape(volume.shape[-3:]).numpy()[self.box], np.float32)


def frame_of(preset: Preset) -> Frame:
    """The frame of a preset, from the public template alone."""
    public = template(preset)
    mask, fluid = public.mask.numpy(), (public.csf * public.ventricles).numpy()
    box = []
    for axis, side in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(int(inside[0]) - _MARGIN, 0), min(int(inside[-1]) + 1 + _MARGIN, side)))
    centre = np.average(np.indices(fluid.shape).reshape(3, -1), axis=1, weights=fluid.ravel())
    x, y, z = (round(float(c)) - part.start for c, part in zip(centre, box, strict=True))
    return Frame((box[0], box[1], box[2]), (x, y, z))


def plane(box: NDArray[np.float32], name: str, index: int) -> Picture:
    """One slice of a cropped volume as a picture, top is front (axial) or up (others)."""
    match name:
        case "axial":
            return box[:, :, index].T[::-1]
        case "coronal":
            return box[:, index, :].T[::-1]
        case "sagittal":
            return box[index, :, :].T[::-1]
        case _:
            raise ValueError(f"{name!r} is no plane; choose from {', '.join(PLANES)}")


def three_planes(volume: Tensor, frame: Frame, zoom: int) -> Picture:
    """Axial, coronal and sagittal cuts side by side on black, `zoom` pixels per voxel."""
    box, (x, y, z) = frame.crop(volume), frame.cuts
    return beside([enlarged(plane(box, name, i), zoom) for name, i in zip(PLANES, (z, y, x), strict=True)])


def enlarged(picture: Picture, zoom: int) -> Picture:
    """Lanczos resampling to `zoom` pixels per voxel, windowed to 0..1."""
    size = (picture.shape[1] * zoom, picture.shape[0] * zoom)
    image = Image.fromarray(np.ascontiguousarray(picture / WINDOW, np.float32)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32).clip(0, 1)


def beside(pictures: list[Picture]) -> Picture:
    """Pictures in a row, each centred on black at the height of the tallest."""
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate([_padded(p, height, p.shape[1]) for p in pictures], axis=1)


def difference(volume: Tensor, first: Tensor, frame: Frame, name: str, zoom: int) -> Colours:
    """What changed against `first`: orange brighter, blue darker, black the same. (rows, columns, 3) bytes."""
    index = dict(zip(PLANES, reversed(frame.cuts), strict=True))[name]
    change = plane(frame.crop(volume) - frame.crop(first), name, index)
    size = (change.shape[1] * zoom, change.shape[0] * zoom)
    image = Image.fromarray(np.ascontiguousarray(change, np.float32)).resize(size, Image.Resampling.LANCZOS)
    share = (np.asarray(image, np.float32) / FULL_COLOUR).clip(-1, 1)
    colours = np.asarray(_CHANGE((share + 1) / 2))[..., :3]
    return np.asarray(np.round(colours * 255), np.uint8)


@dataclass(frozen=True)
class Sheet:
    """Every slice of one plane on one picture, row by row."""

    name: str
    slices: int
    columns: int
    rows: int
    width: int                                               # voxels of one slice
    height: int
    jpeg: bytes


def sheet(volume: Tensor, frame: Frame, name: str, zoom: int) -> Sheet:
    """All slices of `volume` in one plane, for a scroller that only moves a background."""
    box = frame.crop(volume)
    count = box.shape[{"sagittal": 0, "coronal": 1, "axial": 2}[name]]
    slices = [plane(box, name, i) for i in range(count)]
    height, width = slices[0].shape
    rows = -(-count // _SHEET_COLUMNS)
    page = np.zeros((rows * height * zoom, _SHEET_COLUMNS * width * zoom), np.float32)
    for i, picture in enumerate(slices):
        top, left = i // _SHEET_COLUMNS * height * zoom, i % _SHEET_COLUMNS * width * zoom
        page[top : top + height * zoom, left : left + width * zoom] = enlarged(picture, zoom)
    return Sheet(name, count, _SHEET_COLUMNS, rows, width, height, jpeg(page))


def jpeg(picture: Picture | Colours) -> bytes:
    """A grey picture (0..1) or colours (bytes) as JPEG; the same input gives the same bytes."""
    return _encoded(picture, lambda image, file: image.save(file, "JPEG", quality=_QUALITY, optimize=True))


def png(picture: Picture | Colours) -> bytes:
    """A grey picture (0..1) or colours (bytes) as PNG."""
    return _encoded(picture, lambda image, file: image.save(file, "PNG", optimize=True))


def hero_png(
    people: Tensor | Sequence[Tensor], path: Path, preset: Preset, *, columns: int = 4, rows: int = 3, zoom: int = 4
) -> None:
    """The README's picture: columns x rows people on black, each (m, D, H, W) as three planes a modality, one below another."""
    frame = frame_of(preset)
    strips = [np.concatenate([three_planes(one, frame, zoom) for one in person]) for person in people[: columns * rows]]
    gap, width = 7 * zoom, strips[0].shape[1]
    height = max(len(strip) for strip in strips)
    strips += [np.zeros((height, width), np.float32)] * (-len(strips) % columns)
    lines = len(strips) // columns
    page = np.zeros((lines * (height + gap) + gap, columns * (width + gap) + gap), np.float32)
    for i, strip in enumerate(strips):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        page[top : top + len(strip), left : left + width] = strip
    write_atomically(path, png(page))


def _encoded(picture: Picture | Colours, save: Callable[[Image.Image, io.BytesIO], None]) -> bytes:
    levels = picture if picture.dtype == np.uint8 else np.round(picture * 255).astype(np.uint8)
    file = io.BytesIO()
    save(Image.fromarray(levels), file)
    return file.getvalue()


def _padded(picture: Picture, height: int, width: int) -> Picture:
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    page = np.zeros((height, width), np.float32)
    page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page
