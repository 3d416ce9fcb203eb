"""Volumes follow label maps of real scans; run as a program it prints the Bland-Altman table of the module's text."""

from __future__ import annotations

import math
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from braing3n_core.console import show
from braing3n_core.data.preprocess import on_grid
from braing3n_core.data.registration import register
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import correlation
from braing3n_core.tissues import GRID, Volumes, volumes

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real = pytest.mark.skipif(not (DATA / "site-a").is_dir(), reason="no real scans in ../shared/data")
CORTEX = tuple(range(100, 210))                              # numbers of DLMUSE (MUSE atlas)
GREY = (23, 30, 31, 32, 36, 37, 38, 39, 47, 48, 55, 56, 57, 58, 59, 60, 71, 72, 73, 75, 76, *CORTEX)
WHITE = (35, 40, 41, 61, 62, *range(81, 96))                 # brain stem and ventral diencephalon included
VENTRICLES = (49, 50, 51, 52)
NOT_BRAIN = (0, 1, 46)                                       # background and sulcal CSF
LEAST_R = {"brain_ml": 0.97, "gm_ml": 0.85, "wm_ml": 0.9, "ventricles_ml": 0.93}


def measured(path: Path) -> Volumes:
    array, affine = read_volume(path)
    matrix = register(array, affine)
    values = on_grid(array, np.linalg.inv(matrix) @ affine, GRID)
    return volumes(values, "T1w", float(np.linalg.det(matrix[:3, :3])))


def labelled(path: Path) -> dict[str, float]:
    """ml in the scanner's space, from the label map."""
    labels, place = read_volume(path)
    ml = abs(float(np.linalg.det(place[:3, :3]))) / 1000
    sizes = np.bincount(labels.round().astype(int).ravel(), minlength=210) * ml
    brain = sizes.sum() - sizes[list(NOT_BRAIN)].sum()
    grey, white, ventricles = (float(sizes[list(part)].sum()) for part in (GREY, WHITE, VENTRICLES))
    return {"brain_ml": float(brain), "gm_ml": grey, "wm_ml": white, "ventricles_ml": ventricles}


@lru_cache(maxsize=4)
def pairs(site: str, every: int) -> dict[str, np.ndarray]:
    """Measure -> (n, 2) measured and labelled, ml."""
    rows = []
    for path in sorted((DATA / site).glob("sub-*/anat/*_T1w.nii.gz"))[::every]:
        ours = vars(measured(path))
        theirs = labelled(next((DATA / site / "derivatives" / "dlmuse" / path.parts[-3]).rglob("*_dseg.nii.gz")))
        rows.append([[ours[name], theirs[name]] for name in LEAST_R])
    return {name: np.array(rows)[:, place] for place, name in enumerate(LEAST_R)}


@real
@pytest.mark.slow
@pytest.mark.parametrize("site", ["site-a", "site-b"])
def test_volumes_follow_label_maps_of_real_scans(site: str) -> None:
    for name, both in pairs(site, 5).items():
        assert correlation(both[:, 0], both[:, 1]) >= LEAST_R[name], name
        assert abs((both[:, 0] - both[:, 1]).mean()) < 0.05 * both[:, 1].mean() + 3, name


def like_a_scan() -> np.ndarray:
    return template(GRID).t1.numpy().astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.01, 3.0, 5e4])
def test_brightness_alone_changes_nothing(factor: float) -> None:
    one, two = (np.array(astuple(volumes(like_a_scan() * f, "T1w", 1.0)), float) for f in (1.0, factor))
    assert np.allclose(one, two, rtol=1e-3, atol=0.02)


@pytest.mark.slow
def test_a_coils_field_changes_little() -> None:
    field = 1 + 0.3 * np.linspace(-1, 1, GRID.shape[1])[None, :, None] + 0.1 * np.linspace(-1, 1, GRID.shape[2]) ** 2
    one, two = volumes(like_a_scan(), "T1w", 1.0), volumes(like_a_scan() * field, "T1w", 1.0)
    assert two.brain_ml == pytest.approx(one.brain_ml, rel=0.02)
    assert two.gm_ml == pytest.approx(one.gm_ml, rel=0.05)
    assert two.ventricles_ml == pytest.approx(one.ventricles_ml, rel=0.15)


@pytest.mark.slow
def test_ml_are_the_scanners_own() -> None:
    one, two = (np.array(astuple(volumes(like_a_scan(), "T1w", size)), float) for size in (1.0, 0.7))
    assert np.allclose(0.7 * one, two)


@pytest.mark.slow
def test_parts_make_the_whole() -> None:
    found = volumes(like_a_scan(), "T1w", 1.0)
    assert found.gm_ml is not None
    assert found.wm_ml is not None
    assert found.gm_ml + found.wm_ml + found.ventricles_ml == pytest.approx(found.brain_ml)
    public = template(GRID)
    voxels = float((public.gm + public.wm > 0.5).sum())
    assert found.brain_ml == pytest.approx(voxels * math.prod(GRID.spacing_mm) / 1000, rel=0.15)


@pytest.mark.parametrize("modality", ["T2w", "FLAIR"])
def test_what_a_modality_cannot_tell_is_none_and_never_a_number(modality: str) -> None:
    public = template(GRID)
    fluid = 1.0 if modality == "T2w" else 0.1
    values = ((fluid * public.csf + 0.6 * public.gm + 0.5 * public.wm) * public.mask).numpy().astype(np.float64)
    found = volumes(values, modality, 1.0)
    assert (found.gm_ml, found.wm_ml) == (None, None)
    assert found.ventricles_ml == pytest.approx(volumes(like_a_scan(), "T1w", 1.0).ventricles_ml, rel=0.5)
    assert (found.lesion_ml is None) == (modality == "T2w")


def test_a_flair_lesion_of_known_size_is_found() -> None:
    public = template(GRID)
    rng = np.random.default_rng(0)
    values = ((0.1 * public.csf + 0.6 * public.gm + 0.5 * public.wm) * public.mask).numpy() + 0.01 * rng.random(GRID.shape)
    deep = distance_transform_edt(public.wm.numpy() > 0.7)
    blob = tuple(slice(i - 2, i + 3) for i in np.unravel_index(deep.argmax(), deep.shape))
    before = volumes(values, "FLAIR", 1.0).lesion_ml
    values[blob] = 1.0
    after = volumes(values, "FLAIR", 1.0).lesion_ml
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(5**3 * math.prod(GRID.spacing_mm) / 1000, rel=0.4)


@pytest.mark.parametrize("values", [np.zeros(GRID.shape), np.full(GRID.shape, -1.0)])
def test_nothing_is_refused(values: np.ndarray) -> None:
    with pytest.raises(DataRefused, match="no signal"):
        volumes(values, "T1w", 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["T1w", "T2w", "FLAIR", "T1ce"])
def test_what_is_no_brain_is_measured_without_a_crash_or_a_nan(modality: str) -> None:
    for values in (np.ones(GRID.shape), np.random.default_rng(0).random(GRID.shape)):
        found = [value for value in astuple(volumes(values, modality, 1.0)) if value is not None]
        assert np.isfinite(found).all()


def report() -> None:
    """Bland-Altman lines of every scan of both sites."""
    for site in ("site-a", "site-b"):
        for name, both in pairs(site, 1).items():
            error = both[:, 0] - both[:, 1]
            low, high = (error.mean() + sign * 1.96 * error.std(ddof=1) for sign in (-1, 1))
            show(f"{site} n={len(both)} {name:<13} r {correlation(both[:, 0], both[:, 1]):.3f} "
                 f"error {error.mean():+.1f} ml, limits {low:+.1f} to {high:+.1f}")  # fmt: skip


if __name__ == "__main__":
    report()
