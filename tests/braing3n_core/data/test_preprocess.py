"""What a scan becomes: on the grid, in [0, 1.3], white at 0.85, nothing outside the brain, and never moved without need."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates

from braing3n_core.data.phantom import WHITE_LEVEL, phantoms
from braing3n_core.data.preprocess import BRIGHTEST, on_grid, preprocess, scaled
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import brain_mask_of, dice
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from tests.client.studies import study
from tests.small import SMALL

TINY = PRESETS["tiny"]
DATA = Path(__file__).parents[3].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")


@pytest.fixture
def phantom(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    volume = next(phantoms(TINY, 1, 1, Hospital(name="x")))[0]
    path = tmp_path / "sub-01_T1w.nii.gz"
    write_volume(path, 1000 * volume[0].numpy(), template(TINY).affine)
    return path, volume


def plan(registration: str = "none") -> TrainingPlan:
    return study(data={"registration": registration})


def test_a_preprocessed_volume_on_the_grid_passes_unchanged(tmp_path: Path) -> None:
    brain = torch.from_numpy(binary_dilation(template(TINY).mask.numpy()))
    for number, (volume, _) in enumerate(phantoms(TINY, 5, 1, Hospital(name="x", contrast=0.1, bias=0.08))):
        path = tmp_path / f"sub-{number}_T1w.nii.gz"
        write_volume(path, volume[0].numpy(), template(TINY).affine)
        assert torch.equal(preprocess(path, plan()), volume * brain)


def test_raw_units_never_reach_a_model(phantom: tuple[Path, torch.Tensor]) -> None:
    path, _ = phantom
    found, public = preprocess(path, plan()), template(TINY)
    assert found.shape == (1, *TINY.shape)
    assert found.dtype == torch.float32
    assert float(found.min()) >= 0
    assert float(found.max()) <= BRIGHTEST
    assert float(found[0][public.wm > 0.9].median()) == pytest.approx(WHITE_LEVEL, abs=1e-3)
    assert not found[0][~torch.from_numpy(binary_dilation(public.mask.numpy()))].any()


@pytest.mark.slow
def test_the_same_file_never_gives_other_bits(phantom: tuple[Path, torch.Tensor]) -> None:
    path, _ = phantom
    for registration in ("none", "affine"):
        assert torch.equal(preprocess(path, plan(registration)), preprocess(path, plan(registration)))


@pytest.mark.slow
def test_registration_brings_a_phantom_about_where_it_was(phantom: tuple[Path, torch.Tensor]) -> None:
    path, volume = phantom
    found = preprocess(path, plan("affine"))
    assert dice(brain_mask_of(found), brain_mask_of(volume)) > 0.93
    assert dice(brain_mask_of(found), template(TINY).mask) > 0.9


def test_resampling_agrees_with_a_second_implementation() -> None:
    """scipy at the same points, on an oblique, finer, anisotropic grid."""
    rng = np.random.default_rng(0)
    array = gaussian_filter(rng.random((60, 70, 50), dtype=np.float32), 2)
    affine = np.array([[2.0, 0.3, 0, -70], [-0.2, 2.5, 0.2, -100], [0, -0.3, 3.0, -60], [0, 0, 0, 1]])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = gaussian_filter(array, 4 / spacing / 2.355, mode="constant", truncate=4)
    grid = np.indices(TINY.shape).reshape(3, -1)
    points = np.linalg.inv(affine) @ template(TINY).affine @ np.vstack([grid, np.ones(grid.shape[1])])
    wanted = map_coordinates(smooth, points[:3], order=1, mode="constant").reshape(TINY.shape)
    found = on_grid(array, affine, TINY)
    # Inside the scan: at its faces the two differ in what lies half a voxel beyond.
    inside = ((points[:3].T > 8) & (np.array(array.shape) - 9 > points[:3].T)).all(1).reshape(TINY.shape)
    assert inside.sum() > 500
    assert np.abs(found - wanted)[inside].max() < 5e-3 * wanted[inside].max()


def test_a_fine_checkerboard_never_aliases_into_a_coarse_one() -> None:
    board = (np.indices((192, 192, 192)).sum(0) % 2).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = template(TINY).affine[:3, 3]
    inner = on_grid(board, affine, TINY)[4:-4, 4:-4, 4:-4]
    assert inner.std() < 0.01
    assert inner.mean() == pytest.approx(0.5, abs=0.01)


def test_sides_that_differ_are_never_swapped() -> None:
    public = template(SMALL)
    shifted = public.affine.copy()
    found = on_grid(np.pad(public.t1.numpy(), 2), shifted @ _shift(-2), SMALL)
    assert found.shape == SMALL.shape
    assert np.allclose(found, public.t1.numpy(), atol=1e-4)


def _shift(voxels: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_a_scan_that_lies_elsewhere_is_refused_without_registration(phantom: tuple[Path, torch.Tensor]) -> None:
    path, volume = phantom
    far = template(TINY).affine.copy()
    far[:3, 3] += 150
    write_volume(path, volume[0].numpy(), far)
    with pytest.raises(DataRefused, match="no signal where white matter should be"):
        preprocess(path, plan())


def test_orientation_on_disk_changes_nothing(tmp_path: Path, phantom: tuple[Path, torch.Tensor]) -> None:
    path, _ = phantom
    image = nib.load(path)
    turned = tmp_path / "turned.nii.gz"
    nib.save(image.as_reoriented(nib.io_orientation(image.affine)[[2, 0, 1]] * [1, -1]), turned)
    assert torch.allclose(preprocess(turned, plan()), preprocess(path, plan()), atol=1e-5)


def test_brightness_in_the_scanner_never_matters() -> None:
    public = template(TINY)
    volume = next(phantoms(TINY, 1, 2, Hospital(name="x")))[0][0].numpy()
    assert torch.allclose(scaled(volume * 3, public), scaled(volume * 4000, public), atol=1e-5)


@pytest.mark.slow
@real
@pytest.mark.parametrize("name", ["site-a/sub-IXI012/anat/sub-IXI012_T1w.nii.gz", "site-c/sub-06/anat/sub-06_T1w.nii.gz"])
def test_real_scans_become_brains_where_the_template_is(name: str) -> None:
    found, public = preprocess(DATA / name, plan("affine")), template(TINY)
    assert dice(brain_mask_of(found), public.mask) > 0.9
    assert float(found[0][public.wm > 0.9].median()) == pytest.approx(WHITE_LEVEL, abs=1e-3)
    deep = public.csf * public.ventricles > 0.7
    assert float(found[0][deep].mean()) < 0.7 * WHITE_LEVEL  # ventricles are dark: the anatomy lines up, not only the outline
