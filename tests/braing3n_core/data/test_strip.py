"""A head that nobody stripped comes out as a brain: the skull is gone, the brain is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from braing3n_core.data.preprocess import Method, place, volume_of
from braing3n_core.data.strip import brain_in_head
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import brain_mask_of, dice
from braing3n_core.models.presets import PRESETS

SMALL = PRESETS["small"]
DATA = Path(__file__).parents[3].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")


def head() -> tuple[np.ndarray, np.ndarray]:
    """The template's brain in a dark skull and a scalp brighter than brain, as fat is in T1w; and the brain alone, bool."""
    public = template(SMALL)
    brain = np.pad(public.mask.numpy(), 12)
    values = np.pad(public.t1.numpy(), 12)
    inner, outer = binary_dilation(brain, iterations=3), binary_dilation(brain, iterations=6)
    return np.where(outer & ~inner, np.float32(1.6), values), brain


def where() -> np.ndarray:
    affine = template(SMALL).affine.copy()
    affine[:3, 3] -= 24
    return affine


@pytest.mark.slow
def test_a_skull_is_taken_away_and_the_brain_is_kept() -> None:
    values, brain = head()
    found = brain_in_head(values, where(), "T1w")
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.93
    assert (values[found] > 1.4).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("crime", ["empty", "noise"])
def test_what_is_no_head_is_refused_or_leaves_nothing_to_register(crime: str, tmp_path: Path) -> None:
    values = {
        "empty": np.linspace(-1, -0.9, 60)[:, None, None] * np.ones((60, 60, 60)),
        "noise": np.random.default_rng(0).random((60, 60, 60)),
    }[crime]
    write_volume(tmp_path / "x.nii.gz", values, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(DataRefused):
        place(tmp_path / "x.nii.gz", Method(PRESETS["tiny"]))


@real
@pytest.mark.slow
@pytest.mark.parametrize("visit", ["ses-1", "ses-2"])
@pytest.mark.parametrize("modality", ["T1w", "FLAIR"])
def test_the_patient_who_came_with_a_skull_comes_out_as_a_brain(visit: str, modality: str) -> None:
    path = DATA / "site-ms" / "sub-mslong01" / visit / "anat" / f"sub-mslong01_{visit}_{modality}.nii.gz"
    method = Method(PRESETS["tiny"], modality=modality)
    placed = place(path, method)
    assert placed.stripped == "here"
    assert 0.5 < placed.size < 0.95
    volume = volume_of(placed, method)
    assert dice(brain_mask_of(volume), template(PRESETS["tiny"]).mask) > 0.9
    ml = float((placed.array > 0).sum()) * abs(math.prod(np.linalg.svd(placed.affine[:3, :3], compute_uv=False))) / 1000
    assert 1000 < ml * placed.size < 1900
