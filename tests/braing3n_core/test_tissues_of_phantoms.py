"""Volumes follow what phantoms truly hold; run as a program it prints the correlations of the module's text."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from braing3n_core.console import show
from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.preprocess import on_grid
from braing3n_core.data.registration import register
from braing3n_core.data.template import template
from braing3n_core.metrics import correlation
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from braing3n_core.tissues import GRID, Volumes, volumes

MODALITIES = ("T1w", "FLAIR", "T2w")


def measured(image: np.ndarray, affine: np.ndarray, modality: str) -> Volumes:
    """As `prepare` does: the phantom's own grid is the scanner's."""
    matrix = register(image, affine, modality)
    values = on_grid(image, np.linalg.inv(matrix) @ affine, GRID)
    return volumes(np.asarray(values, np.float32), modality, float(np.linalg.det(matrix[:3, :3])))


def pairs(preset: str, contrast: float, seed: int, count: int, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """'T1w ventricles' and the like -> (n, 2) measured and true, ml."""
    grid, found = PRESETS[preset], dict[str, list[tuple[float, float]]]()
    affine = template(grid).affine
    for person in people(grid, count, seed, Hospital(name="site-a", contrast=contrast, bias=0.03), Wishes(modalities)):
        (visit,) = person.visits
        for modality in modalities:
            ours = measured(visit.images[modality].numpy(), affine, modality)
            found.setdefault(f"{modality} ventricles", []).append((ours.ventricles_ml, visit.truth["ventricles"]))
            if ours.lesion_ml is not None:
                found.setdefault(f"{modality} lesions", []).append((ours.lesion_ml, visit.truth["lesions"]))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("contrast", "seed"), [(0.06, 39596)])
def test_ventricles_and_lesions_follow_the_truth_of_phantoms(contrast: float, seed: int) -> None:
    found = pairs("small", contrast, seed, 12, ("T1w", "FLAIR"))
    assert correlation(*found["T1w ventricles"].T) >= 0.95
    assert correlation(*found["FLAIR lesions"].T) >= 0.9


def report() -> None:
    """Correlations over 24 phantoms of each of two contrasts, on the grid that is named (small: 2 mm)."""
    preset = sys.argv[1] if len(sys.argv) > 1 else "small"
    for contrast, seed in ((-0.06, 39595), (0.06, 39596)):
        for name, both in pairs(preset, contrast, seed, 24, MODALITIES).items():
            error = (both[:, 0] - both[:, 1]).mean()
            agreement = f"r {correlation(*both.T):.3f} error {error:+.1f} ml"
            show(f"{preset} contrast {contrast:+.2f} n={len(both)} {name:<16} {agreement}")


if __name__ == "__main__":
    report()
