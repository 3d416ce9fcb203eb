"""The constants that bring people to volumes are fitted twice to the same bytes, and read beside the prior they are about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core.data.phantom import phantoms
from braing3n_core.models.brain import MEASURES
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measures
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior
from server.steering import SteeringRecipe, fit_steering


@pytest.mark.slow
def test_they_are_fitted_twice_to_the_same_bytes_and_read_beside_the_prior(tmp_path: Path) -> None:
    recipe = SteeringRecipe(
        preset="tiny", seed=5, people=40, contrast=(0.0, 0.1), bias=(0.0, 0.05), folding=(0.0, 1.0), ridge=30.0,
        tried=2, values=3,
    )
    made = [fit_steering(recipe, tmp_path / name, lambda _: None) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    for path in (SHIPPED / "tiny.safetensors", SHIPPED / "tiny.json"):
        shutil.copy(path, tmp_path / "one" / path.name)
    few = read_prior(tmp_path / "one" / "tiny.safetensors", parts=("steering",))
    assert bool((few.steered.least <= few.steered.most).all())


@pytest.mark.slow
def test_the_shipped_ones_read_volumes_of_unseen_phantoms() -> None:
    model = read_prior(SHIPPED / "tiny.safetensors", parts=("steering",))
    volumes = torch.stack([volume for volume, _ in phantoms(PRESETS["tiny"], 24, 77, Hospital(name="x", contrast=0.05))])
    with torch.no_grad():
        latents = model.encode(volumes)
        truth, found = measures(model.decode(latents), model.preset), model.steered.read(latents).numpy()
    for place, name in enumerate(MEASURES):
        real = truth[f"{name}_ml"]
        assert abs(found[:, place] - real).mean() < 0.35 * real.std(), name
