"""A public modality comes from phantoms alone, repeats to the byte, and fits the prior whose latents it is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core.data.patient import Wishes, people
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior
from server.modality import ModalityRecipe, train_modality
from server.optimise import Phase

TINY = PRESETS["tiny"]
SHORT = Phase(steps=2, batch=2, learning_rate=1e-3)
RECIPE = ModalityRecipe(
    preset="tiny", modality="FLAIR", seed=3, people=12, contrast=(0.0, 0.1), bias=(0.0, 0.05), folding=(0.0, 1.0), ema=0.9,
    decoder=SHORT, translation=SHORT,
)  # fmt: skip


@pytest.mark.slow
def test_a_small_one_is_trained_twice_to_the_same_bytes_and_rebuilds_better_than_its_mean(tmp_path: Path) -> None:
    made = [train_modality(RECIPE, tmp_path / name, lambda _: None) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    for path in (SHIPPED / "tiny.safetensors", SHIPPED / "tiny.json"):
        shutil.copy(path, tmp_path / "one" / path.name)
    model = read_prior(tmp_path / "one" / "tiny.safetensors", parts=("FLAIR",))
    own = model.modality("FLAIR")
    assert all(float(weight.abs().max()) == 0 for weight in own.decoder.style.parameters()), "a scanner's style is no public's"
    (person,) = people(TINY, 1, 3, Hospital(name="public"), Wishes(modalities=("FLAIR",)))
    flair = person.visits[0].images["FLAIR"][None, None]
    with torch.no_grad():
        rebuilt = model.decode(model.encode(flair, "FLAIR"), "FLAIR")
    assert float((rebuilt - flair).square().mean()) < float((own.decoder.mean - flair).square().mean())
