"""A file that is not one whole, finite, oriented 3D scan is refused in one line; a file we write says only what it was told."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from braing3n_core.data.volume import read_volume, write_volume
from braing3n_core.errors import DataRefused

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (-9, -11, -13)


def scan(shape: tuple[int, ...] = (10, 12, 14)) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32) + 1


def saved(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataRefused) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert ";" in message
    assert "\n" not in message
    return message


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "sub-01_T1w.nii.gz")


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.nii"
    path.write_text("not an image at all\n" * 100)
    assert "not NIfTI" in refusal(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.nii.gz"
    path.touch()
    refusal(path)


def test_another_image_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.img"
    nib.save(nib.AnalyzeImage(scan(), AFFINE), path)
    assert "not NIfTI" in refusal(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
def test_the_same_scan_is_read_from_every_format(tmp_path: Path, kind: type) -> None:
    path = tmp_path / ("scan.mgz" if kind is nib.MGHImage else "scan.nii")
    nib.save(kind(scan(), AFFINE), path)
    values, affine = read_volume(path)
    assert np.array_equal(values, scan())
    assert np.allclose(affine, AFFINE)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_T1w.nii"
    os.mkfifo(path)
    assert "no ordinary file" in refusal(path)


def test_a_bomb_is_refused_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(nib.Nifti1Image(scan(), AFFINE).to_bytes())
        stream.write(bytes(2**22))
    assert "more than its header says" in refusal(path)


@pytest.mark.parametrize("offset", [1e9, -5, np.inf, np.nan])
def test_a_header_that_hides_the_voxels_is_refused_before_it_is_read(tmp_path: Path, offset: float) -> None:
    content = bytearray(nib.Nifti1Image(scan(), AFFINE).to_bytes())
    content[108:112] = np.array([offset], "<f4").tobytes()
    path = tmp_path / "hidden.nii"
    path.write_bytes(bytes(content))
    assert "voxels start at byte" in refusal(path)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path / "cut.nii", scan())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("lost", [1, 9, 2000])
def test_a_truncated_gzip_stream_is_refused_even_when_all_voxels_are_there(tmp_path: Path, lost: int) -> None:
    path = saved(tmp_path / "cut.nii.gz", scan())
    path.write_bytes(path.read_bytes()[:-lost])
    assert "truncated" in refusal(path)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bit.nii.gz"
    content = bytearray(gzip.compress(nib.Nifti1Image(scan(), AFFINE).to_bytes(), compresslevel=0))
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    assert "damaged" in refusal(path)


def test_a_series_is_refused(tmp_path: Path) -> None:
    assert "4-D" in refusal(saved(tmp_path / "series.nii.gz", scan((10, 12, 14, 3))))


def test_one_volume_stored_as_a_series_of_one_is_read(tmp_path: Path) -> None:
    values, _ = read_volume(saved(tmp_path / "one.nii.gz", scan((10, 12, 14, 1))))
    assert values.shape == (10, 12, 14)


@pytest.mark.parametrize(("value", "words"), [(0, "zero everywhere"), (7, "one value everywhere")])
def test_an_empty_scan_is_refused(tmp_path: Path, value: int, words: str) -> None:
    assert words in refusal(saved(tmp_path / "flat.nii.gz", np.full((10, 12, 14), value, np.float32)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e300])
def test_a_scan_that_is_not_finite_in_float32_is_refused(tmp_path: Path, poison: float) -> None:
    values = scan().astype(np.float64)
    values[3, 4, 5] = poison
    assert "NaN or infinite" in refusal(saved(tmp_path / "poison.nii.gz", values))


@pytest.mark.parametrize("fault", ["zero", "flat", "parallel", "nan"])
def test_a_singular_affine_is_refused(tmp_path: Path, fault: str) -> None:
    rows = {"zero": (0, 0, 0, 0), "flat": (0, 0, 0, 5), "parallel": (0, 2, 0, 1), "nan": (0, 0, np.nan, 1)}[fault]
    content = bytearray(nib.Nifti1Image(scan(), AFFINE).to_bytes())
    content[252:254] = bytes(2)                          # qform_code
    content[312:328] = np.array(rows, "<f4").tobytes()   # srow_z
    path = tmp_path / "flat.nii"
    path.write_bytes(bytes(content))
    assert "singular affine" in refusal(path)


@pytest.mark.parametrize("shape", [(3, 12, 14), (2000, 8, 8)])
def test_absurd_dimensions_are_refused(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    assert "absurd dimensions" in refusal(saved(tmp_path / "odd.nii.gz", np.ones(shape, np.uint8)))


def test_a_header_that_promises_a_terabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), AFFINE)
    content = bytearray(image.to_bytes())
    content[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
    path = tmp_path / "huge.nii"
    path.write_bytes(bytes(content))
    assert "absurd dimensions" in refusal(path)


def test_voxels_in_metres_are_refused(tmp_path: Path) -> None:
    assert "absurd dimensions" in refusal(saved(tmp_path / "metres.nii.gz", scan(), np.diag([0.002, 0.002, 0.002, 1])))


def test_a_colour_image_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((10, 12, 14), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    colours["R"] = 3
    assert "grey-scale" in refusal(saved(tmp_path / "colour.nii.gz", colours))


def test_unknown_orientation_is_refused(tmp_path: Path) -> None:
    assert "left and right are unknown" in refusal(saved(tmp_path / "lost.nii.gz", scan(), None))


def test_no_voxel_moves_in_space_when_axes_are_turned(tmp_path: Path) -> None:
    turned = np.array([[0, 0, 2.0, -9], [-2.0, 0, 0, 11], [0, -2.0, 0, 13], [0, 0, 0, 1]])     # posterior, inferior, right
    source = scan((10, 12, 14))
    values, affine = read_volume(saved(tmp_path / "turned.nii.gz", source, turned))
    assert values.dtype == np.float32
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    here = np.linalg.inv(affine) @ turned @ (1, 2, 3, 1)
    i, j, k = np.rint(here[:3]).astype(int)
    assert values[i, j, k] == source[1, 2, 3]


def test_scale_factors_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii.gz"
    nib.save(nib.Nifti1Image(np.linspace(0, 5000, 1000).reshape(10, 10, 10), AFFINE, dtype=np.uint8), path)
    values, _ = read_volume(path)
    assert values.max() == pytest.approx(5000, rel=1e-3)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path, source = tmp_path / "out.nii.gz", scan()
    write_volume(path, source, AFFINE)
    values, affine = read_volume(path)
    assert np.array_equal(values, source)
    assert np.array_equal(affine, AFFINE)


def test_nothing_is_in_the_header_that_was_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "sub-secret_T1w.nii.gz"
    write_volume(path, scan(), AFFINE, descrip="synthetic", intent_name="T1w")
    packed = path.read_bytes()
    header = nib.load(path).header
    assert packed[3] == 0                                # gzip: no file name, no comment
    assert packed[4:8] == bytes(4)                       # gzip: no time
    assert bytes(header["descrip"]).rstrip(b"\0") == b"synthetic"
    assert bytes(header["intent_name"]).rstrip(b"\0") == b"T1w"
    assert not any(bytes(header[name]).strip(b"\0") for name in ("aux_file", "db_name", "data_type"))
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_data_dtype() == np.float32
    assert gzip.decompress(packed)[112:120] == np.array([1, 0], "<f4").tobytes()      # scl_slope, scl_inter
    assert not header.extensions
    assert len(gzip.decompress(packed)) == 352 + scan().nbytes


def test_the_same_volume_never_gives_other_bytes(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", scan(), AFFINE, descrip="x")
    write_volume(tmp_path / "b.nii.gz", scan().astype(np.float64), AFFINE, descrip="x")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.nii.gz"
    write_volume(path, scan(), AFFINE)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_volume(path, scan() + 1, AFFINE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("array", [np.full((8, 8, 8), np.nan), np.ones((8, 8)), np.ones((8, 8, 8, 2))])
def test_what_is_no_volume_is_never_written(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite and 3D"):
        write_volume(tmp_path / "out.nii.gz", array, AFFINE)


def test_a_text_that_does_not_fit_is_refused_rather_than_cut(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="79 bytes"):
        write_volume(tmp_path / "out.nii.gz", scan(), AFFINE, descrip="x" * 80)
