"""The shipped prior is the one its record describes, and nothing else is taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core import prior
from braing3n_core.data.phantom import phantoms
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.metrics import psnr
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan

WEIGHTS = Path(prior.__file__).parent / "weights"
RECIPES = Path(prior.__file__).parent.parent / "simulations" / "recipes"


def test_the_shipped_prior_is_small_and_made_by_the_shipped_recipe() -> None:
    from server.prior import PriorRecipe

    record = json.loads((WEIGHTS / "tiny.json").read_text())
    assert (WEIGHTS / "tiny.safetensors").stat().st_size <= 12 * 2**20
    assert PriorRecipe.load(RECIPES / "prior_tiny.toml").model_dump(mode="json") == record["recipe"]


def test_new_phantoms_are_rebuilt_far_better_than_by_the_mean_volume() -> None:
    model = prior.read_prior(WEIGHTS / "tiny.safetensors")
    brain = model.decoder.brain > 0
    people = torch.stack([v for v, _ in phantoms(PRESETS["tiny"], 8, 424242, Hospital(name="new"))])
    rebuilt = model.decode(model.encode(people))
    gains = [psnr(a, b, brain) - psnr(a, model.decoder.mean, brain) for a, b in zip(people, rebuilt, strict=True)]
    assert min(gains) >= 3.0


@pytest.mark.parametrize("damage", ["bit", "gone", "record"])
def test_a_prior_that_was_tampered_with_is_refused(tmp_path: Path, damage: str) -> None:
    for name in ("tiny.safetensors", "tiny.json"):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    weights = tmp_path / "tiny.safetensors"
    match damage:
        case "bit":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(bytes(content))
        case "gone":
            weights.unlink()
        case "record":
            (tmp_path / "tiny.json").write_text("{}")
    with pytest.raises(IntegrityError, match="install the package again"):
        prior.read_prior(weights)


def test_a_plan_with_other_variables_is_refused() -> None:
    plan = TrainingPlan.load(RECIPES / "smoke.toml")
    with pytest.raises(PlanRefused, match="variables"):
        prior.load_prior(plan.but(variables=plan.variables[:-1]))
