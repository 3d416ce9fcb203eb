"""A brain ends up on the template, the same bits every time; what is no brain is refused rather than bent into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from braing3n_core.data.phantom import phantoms
from braing3n_core.data.preprocess import on_grid
from braing3n_core.data.registration import register
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import dice
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital

TINY = PRESETS["tiny"]
DATA = Path(__file__).parents[3].parent / "shared" / "data"
SCANS = [
    "site-a/sub-IXI012/anat/sub-IXI012_T1w.nii.gz",
    "site-b/sub-IXI083/anat/sub-IXI083_T1w.nii.gz",
    "site-c/sub-06/anat/sub-06_T1w.nii.gz",
    "site-c/sub-58/anat/sub-58_T1w.nii.gz",
    "site-ms/sub-ms07/anat/sub-ms07_T1w.nii.gz",
]
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")


def turned(degrees: float, scale: float, shift_mm: float) -> np.ndarray:
    """(4, 4) mm -> mm: a turn about the vertical axis, a size and a shift."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = (shift_mm, -2 * shift_mm, shift_mm / 2)
    return matrix


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "scale", "shift_mm"), [(0, 1, 0), (8, 0.85, 12), (-12, 1.1, -30)])
def test_a_brain_that_was_moved_is_brought_back(degrees: float, scale: float, shift_mm: float) -> None:
    public = template(TINY)
    moved = turned(degrees, scale, shift_mm) @ public.affine
    found = register(public.t1.numpy(), moved)
    corners = np.array([[0, 0, 0, 1], [60, 0, 0, 1], [0, 70, 0, 1], [0, 0, 60, 1], [-50, -80, 10, 1]]).T
    miss = np.linalg.norm((found @ corners - turned(degrees, scale, shift_mm) @ corners)[:3], axis=0)
    assert miss.max() < 2.0                                  # mm; half a voxel


@pytest.mark.slow
def test_the_same_scan_never_registers_to_other_bits() -> None:
    volume = next(phantoms(TINY, 1, 3, Hospital(name="x")))[0][0].numpy()
    one, two = (register(volume, template(TINY).affine) for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.slow
def test_a_phantom_keeps_about_its_place() -> None:
    for volume, _ in phantoms(TINY, 4, 3, Hospital(name="x")):
        found = register(volume[0].numpy(), template(TINY).affine)
        assert np.abs(found - np.eye(4))[:3, :3].max() < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("crime", ["noise", "box", "ball", "half", "empty", "upside down"])
def test_what_is_no_whole_brain_is_refused(crime: str) -> None:
    public = template(TINY)
    values = public.t1.numpy().copy()
    match crime:
        case "noise":
            values = np.random.default_rng(0).random(TINY.shape, dtype=np.float32)
        case "box":
            values = np.ones(TINY.shape, np.float32)
            values[:2] = 0
        case "ball":
            far = np.indices(TINY.shape).reshape(3, -1).T - (np.array(TINY.shape) - 1) / 2
            values = (np.linalg.norm(far, axis=1) < 18).reshape(TINY.shape).astype(np.float32)
        case "half":
            values[:, :, 20:] = 0
        case "empty":
            values = -np.ones(TINY.shape, np.float32)
        case "upside down":
            values = values[:, :, ::-1].copy()
    with pytest.raises(DataRefused, match="did not register") as refusal:
        register(values, public.affine)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_head_with_its_skull_is_refused() -> None:
    """A bright shell around the brain, as far out as a scalp lies."""
    public = template(TINY)
    values = affine_transform(public.t1.numpy(), np.eye(3) * 1.3, offset=-0.15 * np.array(TINY.shape), order=1)
    here = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in TINY.shape], indexing="ij"))
    radius = np.sqrt((here**2).sum(0))
    values[(radius > 0.78) & (radius < 0.95)] = 2.0
    with pytest.raises(DataRefused, match="skull-stripped"):
        register(values, public.affine)


@pytest.mark.slow
@real
@pytest.mark.parametrize("name", SCANS)
def test_real_scans_lie_on_the_template(name: str) -> None:
    array, affine = read_volume(DATA / name)
    matrix = register(array, affine)
    placed = torch.from_numpy(on_grid(array, np.linalg.inv(matrix) @ affine, TINY))
    assert dice(placed > 0.1 * placed.quantile(0.99), template(TINY).mask) > 0.9
    alike = torch.corrcoef(torch.stack([placed.flatten(), template(TINY).t1.flatten()]))[0, 1]
    assert float(alike) > 0.8


@pytest.mark.slow
@real
@pytest.mark.parametrize("visit", ["ses-1", "ses-2"])
def test_a_real_head_that_was_not_stripped_is_refused(visit: str) -> None:
    path = DATA / "site-ms" / "sub-mslong01" / visit / "anat" / f"sub-mslong01_{visit}_T1w.nii.gz"
    with pytest.raises(DataRefused, match="skull-stripped"):
        register(*read_volume(path))
