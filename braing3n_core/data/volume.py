"""NIfTI-1, NIfTI-2 and MGZ files in, NIfTI-1 out, and nothing else. The only file that knows nibabel.

Reading trusts nothing: what cannot be a brain scan is refused in one line, and no header makes it take more memory than the
header's own volume needs. Writing keeps nothing: a header holds the grid, the units and the text that was asked for, and the
same arguments give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically

MNI = 4                                      # NIfTI xform code NIFTI_XFORM_MNI_152

_SIDE = (8, 1024)                            # voxels per axis; a 7T scan at 0.25 mm has 880
_MOST_VOXELS = 512**3                        # 0.5 GiB as float32
_VOXEL_MM = (0.1, 20.0)
_MOST_HEADER = 2**20                         # bytes before the first voxel: header and extensions
_SLACK = 2**20                               # bytes after the last voxel: padding, or the footer of an MGZ file
_VOX_OFFSET_END = 176                        # bytes that hold the field in either version
_VOX_OFFSET = {348: ("f", 108), 540: ("q", 168)}       # by sizeof_hdr: NIfTI-1 and NIfTI-2, type and place of the field
_LEAST_DETERMINANT = 0.1                     # of the unit axes: 1 is orthogonal, 0 is flat
_COMPRESSION = 6
_DESCRIP_BYTES = 79                          # NIfTI-1 field sizes, less the closing zero
_INTENT_BYTES = 15


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One scan: float32 (D, H, W) with axes right, anterior, superior, and its affine (4, 4), voxel -> mm.

    Raises DataRefused, naming the file, unless it is a complete NIfTI or MGZ file with one finite, non-constant 3D volume of
    believable size whose orientation is known.
    """
    with _refusals(path):
        canonical = nib.as_closest_canonical(_opened(path))
        values = np.array(canonical.get_fdata(dtype=np.float32, caching="unchanged"))
    values = values.reshape(values.shape[:3])            # (D, H, W, 1, ...) -> (D, H, W)
    _check_values(path, values)
    return values, np.asarray(canonical.affine, np.float64)


@dataclass(frozen=True)
class Header:
    """What a file says of itself, without its voxels. Texts are named, never given."""

    sides: tuple[int, ...]                               # voxels
    voxel_mm: tuple[float, ...]
    axes: str                                            # as stored, for example LPS
    millimetres: bool                                    # whether it says that its unit is the mm
    texts: tuple[str, ...]                               # fields that hold text somebody wrote


def read_header(path: Path) -> Header:
    """A scan's header. Raises DataRefused as `read_volume` does, but for what only voxels show."""
    with _refusals(path):
        image = _opened(path)
        sides = tuple(int(side) for side in image.shape[:3])
        mm = tuple(float(side) for side in np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0))
        nifti = isinstance(image, nib.Nifti1Image)
        millimetres = image.header.get_xyzt_units()[0] == "mm" if nifti else True           # MGZ knows no other
        return Header(sides, mm, "".join(nib.aff2axcodes(image.affine)), millimetres, _texts(image.header) if nifti else ())


def write_volume(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    space_code: int = MNI,
    descrip: str = "",
    intent_name: str = "",
) -> None:
    """Write (D, H, W) as float32 NIfTI-1, gzipped when the name ends in .gz.

    Guarantee: the header holds the grid in mm, `space_code` in sform and qform, `descrip` and `intent_name`, and zeros where
    other text could be; the same arguments give the same bytes; `path` holds the whole file or what it held before.
    """
    values = np.asarray(array, np.float32)
    if values.ndim != 3 or not np.isfinite(values).all():
        raise ValueError(f"a volume is finite and 3D, got shape {values.shape}; correct the array written to {path.name}")
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, space_code)
    image.set_qform(affine, space_code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = _field("descrip", descrip, _DESCRIP_BYTES)
    image.header["intent_name"] = _field("intent_name", intent_name, _INTENT_BYTES)
    content = image.to_bytes()
    write_atomically(path, gzipped(content) if path.suffix == ".gz" else content)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Whatever goes wrong in a file, in one line."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")              # a strange header is judged by what it leads to
            yield
    except DataRefused:
        raise
    except FileNotFoundError as error:
        raise DataRefused(f"{path.name} is not there; check the folder and run again") from error
    except PermissionError as error:
        raise DataRefused(f"{path.name} may not be read by this user; change its permissions and run again") from error
    except Exception as error:                           # a damaged file makes nibabel raise nearly anything
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataRefused(f"{path.name} is damaged, truncated or not NIfTI ({why}); copy it again from its source") from error


def _texts(header: Any) -> tuple[str, ...]:  # noqa: ANN401 - nibabel is untyped
    names = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
    filled = [name for name in names if name in header and bytes(header[name]).strip(b"\0 ")]
    return (*filled, *(["extensions"] if header.extensions else []))


def _opened(path: Path) -> Any:  # noqa: ANN401 - nibabel is untyped
    """The image behind a file that holds what its header promises, no more and no less. No voxel is kept yet."""
    if not stat.S_ISREG(path.stat().st_mode):            # a pipe would be waited for without end
        raise DataRefused(f"{path.name} is no ordinary file; put the scan itself there")
    with _stream(path) as stream:
        _check_start(path, stream.read(_VOX_OFFSET_END))
    image = nib.load(path)
    _check_grid(path, image)
    expected = int(image.dataobj.offset) + int(np.prod(image.shape, dtype=np.int64)) * image.get_data_dtype().itemsize
    with _stream(path) as stream:
        _check_length(path, stream, expected)
    return image


def _stream(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]  # GzipFile reads bytes as well


def _check_start(path: Path, start: bytes) -> None:
    """Nibabel reads all extensions at once, however long the header says they are."""
    for order in ("<", ">"):
        size = struct.unpack(f"{order}i", start[:4])[0] if len(start) >= 4 else 0
        if size in _VOX_OFFSET and len(start) == _VOX_OFFSET_END:
            kind, place = _VOX_OFFSET[size]
            offset = struct.unpack_from(order + kind, start, place)[0]
            if not 0 <= offset <= _MOST_HEADER:
                raise DataRefused(f"{path.name} says its voxels start at byte {offset:.3g}; copy it again from its source")


def _check_length(path: Path, stream: BinaryIO, expected: int) -> None:
    """To the end: nibabel stops at the last voxel, and the checksum of a gzip stream comes after it."""
    length = 0
    while chunk := stream.read(2**20):
        length += len(chunk)
        if not length <= expected + _SLACK:
            raise DataRefused(f"{path.name} unpacks to more than its header says; export it again as one brain scan per file")
    if not length >= expected:
        raise DataRefused(f"{path.name} is truncated: {length} bytes of {expected}; copy it again from its source")


def _check_grid(path: Path, image: Any) -> None:  # noqa: ANN401 - nibabel is untyped
    """What the header alone tells, before any voxel is read."""
    name, shape = path.name, tuple(int(side) for side in image.shape)
    if not isinstance(image, nib.Nifti1Image | nib.MGHImage):              # NIfTI-2 is a subclass
        raise DataRefused(f"{name} is not NIfTI or MGZ; convert it, for example with mri_convert")
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise DataRefused(f"{name} is {len(shape)}-D {shape}, a scan is one 3D volume; split it or leave it out")
    least, most = _SIDE
    if not (all(least <= side <= most for side in shape[:3]) and np.prod(shape[:3], dtype=np.float64) <= _MOST_VOXELS):
        raise DataRefused(f"{name} has absurd dimensions {shape[:3]}, sides are {least} to {most} voxels; check the file")
    if image.get_data_dtype().kind not in "iuf":
        raise DataRefused(f"{name} holds {image.get_data_dtype()}, not one number per voxel; export it as a grey-scale image")
    if not _is_oriented(image):
        raise DataRefused(f"{name} does not say how it is oriented, so left and right are unknown; set its sform and qform")
    _check_affine(name, np.asarray(image.affine, np.float64))


def _is_oriented(image: Any) -> bool:  # noqa: ANN401 - nibabel is untyped
    if isinstance(image, nib.MGHImage):
        return int(image.header["goodRASFlag"]) > 0
    return int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0


def _check_affine(name: str, affine: np.ndarray) -> None:
    axes = affine[:3, :3]
    sides = np.linalg.norm(axes, axis=0)                 # mm
    if not (np.isfinite(affine).all() and sides.min() > 0 and abs(np.linalg.det(axes / sides)) > _LEAST_DETERMINANT):
        raise DataRefused(f"{name} has a singular affine, so its voxels have no place in space; correct its sform and qform")
    if not (sides.min() >= _VOXEL_MM[0] and sides.max() <= _VOXEL_MM[1]):
        found = " x ".join(f"{side:.3g}" for side in sides)
        raise DataRefused(f"{name} has absurd dimensions: voxels of {found} mm; check the units of its affine")


def _check_values(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise DataRefused(f"{path.name} has NaN or infinite voxels; export it again or replace them at their cause")
    if not values.any():
        raise DataRefused(f"{path.name} is zero everywhere; export it again or leave it out")
    if not values.max() > values.min():
        raise DataRefused(f"{path.name} has one value everywhere; export it again or leave it out")


def _field(name: str, text: str, most: int) -> bytes:
    raw = text.encode("ascii")
    if not len(raw) <= most:
        raise ValueError(f"{name} takes {most} bytes, got {len(raw)}; shorten it")
    return raw


def gzipped(content: bytes) -> bytes:
    """A gzip stream without time and file name in its header: the same content gives the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=packed, mtime=0) as stream:
        stream.write(content)
    return packed.getvalue()
