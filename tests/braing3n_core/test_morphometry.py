"""Volumes follow the truth of phantoms and the label maps of real scans; the numbers in the module's text are made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.phantom import phantoms
from braing3n_core.data.preprocess import on_grid, scaled
from braing3n_core.data.registration import register
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import correlation
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measure
from braing3n_core.plan import Hospital
from tests.small import SMALL

TINY = PRESETS["tiny"]
PUBLIC = Hospital(name="public")
DATA = Path(__file__).parents[2].parent / "shared" / "data"
VENTRICLES = (49, 50, 51, 52)                                # DLMUSE labels: inferior lateral and lateral ventricles
real = pytest.mark.skipif(not (DATA / "site-a").is_dir(), reason="no real scans in ../shared/data")


def ventricles(volume: torch.Tensor) -> float:
    return measure(volume, template(TINY), TINY.spacing_mm).ventricles_ml


@pytest.mark.slow
@pytest.mark.parametrize(
    "hospital", [PUBLIC, Hospital(name="dark", contrast=-0.08), Hospital(name="other", contrast=0.12, bias=0.05)]
)
def test_ventricles_of_one_hospital_follow_the_truth(hospital: Hospital) -> None:
    found = list(phantoms(TINY, 80, 3, hospital))
    measured, truth = [ventricles(v) for v, _ in found], [t.ventricles_ml for _, t in found]
    assert correlation(measured, truth) >= 0.87
    assert correlation(measured, [t.age for _, t in found]) >= 0.65


@pytest.mark.slow
def test_ventricles_follow_the_truth_as_well_as_the_text_says() -> None:
    found = list(phantoms(TINY, 150, 3, PUBLIC))
    measured = [ventricles(v) for v, _ in found]
    assert correlation(measured, [t.ventricles_ml for _, t in found]) == pytest.approx(0.92, abs=0.01)


@pytest.mark.slow
def test_a_wider_ventricle_of_the_same_person_never_measures_smaller() -> None:
    """Same seed, same anatomy and contrast; only the ageing of the hospital differs."""
    grown = [
        [ventricles(v) for v, _ in phantoms(TINY, 10, 4, Hospital(name="x", ageing=more))] for more in (-0.2, 0.0, 0.2, 0.4)
    ]
    assert (np.diff(np.array(grown), axis=0) > -0.2).all()   # ml; 0.2 is the noise of a voxel
    assert np.mean(grown[3]) > np.mean(grown[0]) + 3


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1])
def test_brightness_alone_changes_nothing(factor: float) -> None:
    volume = next(phantoms(TINY, 1, 5, PUBLIC))[0]
    assert ventricles(volume * factor) == pytest.approx(ventricles(volume), rel=1e-3)


def test_the_template_has_the_volumes_of_its_maps() -> None:
    public = template(TINY)
    found = measure(public.t1, public, TINY.spacing_mm)
    voxel_ml = 0.064
    assert found.brain_ml == pytest.approx(float(public.mask.sum()) * voxel_ml, rel=0.03)
    assert found.gm_ml + found.wm_ml + found.csf_ml == pytest.approx(found.brain_ml)
    assert found.wm_ml == pytest.approx(float(public.wm.sum()) * voxel_ml, rel=0.35)
    assert found.ventricles_ml == pytest.approx(float((public.csf * public.ventricles).sum()) * voxel_ml, rel=0.35)


def test_what_is_no_brain_is_measured_without_a_crash_or_a_nan() -> None:
    noise = torch.rand(1, *TINY.shape, generator=torch.Generator().manual_seed(0))
    for volume in (torch.zeros(1, *TINY.shape), torch.ones(TINY.shape), noise):
        assert np.isfinite(list(vars(measure(volume, template(TINY), TINY.spacing_mm)).values())).all()


def test_a_volume_with_nan_or_of_another_grid_is_refused() -> None:
    volume = torch.ones(1, *TINY.shape)
    volume[0, 3, 4, 5] = torch.nan
    with pytest.raises(DataRefused, match="not finite"):
        ventricles(volume)
    with pytest.raises(DataRefused, match="not on the grid"):
        ventricles(torch.ones(2, *TINY.shape))
    with pytest.raises(DataRefused, match="not on the grid"):
        measure(torch.ones(TINY.shape), template(SMALL), SMALL.spacing_mm)


@real
@pytest.mark.slow
@pytest.mark.parametrize(("site", "least"), [("site-a", 0.93), ("site-b", 0.96)])
def test_real_ventricles_agree_with_label_maps(site: str, least: float) -> None:
    """28 scans: label volume in template space is the native one over the affine's determinant."""
    measured, labelled, native = [], [], []
    for path in sorted((DATA / site).glob("sub-*/anat/*_T1w.nii.gz"))[::2]:
        array, affine = read_volume(path)
        matrix = register(array, affine)
        volume = scaled(on_grid(array, np.linalg.inv(matrix) @ affine, TINY), template(TINY))
        labels, place = read_volume(next((DATA / site / "derivatives" / "dlmuse" / path.parts[-3]).rglob("*_dseg.nii.gz")))
        ml = float(np.isin(labels.round(), VENTRICLES).sum()) * abs(float(np.linalg.det(place[:3, :3]))) / 1000
        measured.append(ventricles(volume))
        native.append(ml)
        labelled.append(ml / float(np.linalg.det(matrix)))
    error = np.array(measured) - np.array(labelled)
    assert correlation(measured, labelled) >= least
    assert correlation(measured, native) >= 0.85
    assert abs(error.mean()) < 4                             # ml


