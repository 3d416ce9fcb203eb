"""The shipped prior is the one its record describes, and nothing else is taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core import prior
from braing3n_core.data.phantom import WHITE_LEVEL, phantoms
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.metrics import psnr
from braing3n_core.models.presets import PRESETS
from braing3n_core.models.trainable import select_trainable
from braing3n_core.plan import DEFAULT_VARIABLES, Categorical, Continuous, Hospital, TrainingPlan
from braing3n_core.training import row_loss
from tests.small import SMALL
from tests.small import stage as small_stage

WEIGHTS = Path(prior.__file__).parent / "weights"
HEIGHT = Continuous(kind="continuous", name="height", unit="cm", low=100.0, high=220.0)
HAND = Categorical(kind="categorical", name="hand", levels=("right", "left"))
RELEASE = {"seed": 1, "cells": [{"count": 1, "conditions": {}}]}
RECIPES = Path(prior.__file__).parent.parent / "simulations" / "recipes"


def test_the_shipped_prior_is_small_and_made_by_the_shipped_recipe() -> None:
    from server.prior import PriorRecipe

    record = json.loads((WEIGHTS / "tiny.json").read_text())
    assert (WEIGHTS / "tiny.safetensors").stat().st_size <= 12 * 2**20
    recipe = PriorRecipe.load(RECIPES / "prior_tiny.toml")
    assert recipe.model_dump(mode="json", exclude_defaults=True) == record["recipe"]


def test_the_shipped_trajectory_is_small_and_made_by_the_shipped_recipe_for_the_shipped_prior() -> None:
    from server.trajectory import TrajectoryRecipe

    record, about = (json.loads((WEIGHTS / f"tiny{kind}.json").read_text()) for kind in ("", ".trajectory"))
    assert (WEIGHTS / "tiny.trajectory.safetensors").stat().st_size <= 4 * 2**20
    assert TrajectoryRecipe.load(RECIPES / "trajectory_tiny.toml").model_dump(mode="json") == about["recipe"]
    assert about["prior"] == record["sha256"]


def test_the_shipped_spread_is_made_by_the_shipped_recipe_for_the_shipped_prior_and_changes_nothing_of_it() -> None:
    from server.spread import SpreadRecipe

    record, about = (json.loads((WEIGHTS / f"tiny{kind}.json").read_text()) for kind in ("", ".spread"))
    assert SpreadRecipe.load(RECIPES / "spread_tiny.toml").model_dump(mode="json") == about["recipe"]
    assert about["prior"] == record["sha256"]
    plain, wider = (prior.read_prior(WEIGHTS / "tiny.safetensors", parts=parts) for parts in ((), ("spread",)))
    new = {f"spread.{name}" for name in ("centre", "usual", "moves.code", "logs.code")}
    assert set(wider.state_dict()) - set(plain.state_dict()) == new
    assert float(wider.spreading.usual.min()) > 0
    assert float(wider.spreading.logs.code.abs().max()) == 0


def test_the_shipped_steering_is_made_by_the_shipped_recipe_for_the_shipped_prior() -> None:
    from server.steering import SteeringRecipe

    record, about = (json.loads((WEIGHTS / f"tiny{kind}.json").read_text()) for kind in ("", ".steering"))
    assert SteeringRecipe.load(RECIPES / "steering_tiny.toml").model_dump(mode="json") == about["recipe"]
    assert about["prior"] == record["sha256"]


def test_a_trajectory_of_another_prior_is_refused(tmp_path: Path) -> None:
    for path in WEIGHTS.iterdir():
        shutil.copy(path, tmp_path / path.name)
    record = json.loads((tmp_path / "tiny.trajectory.json").read_text())
    (tmp_path / "tiny.trajectory.json").write_text(json.dumps(record | {"prior": "0" * 64}))
    with pytest.raises(IntegrityError, match="belongs to another prior"):
        prior.read_prior(tmp_path / "tiny.safetensors", parts=("trajectory",))
    assert prior.read_prior(tmp_path / "tiny.safetensors").trajectory is None


def test_a_trajectory_beside_the_prior_changes_nothing_of_it() -> None:
    plain, longer = (prior.read_prior(WEIGHTS / "tiny.safetensors", parts=parts) for parts in ((), ("trajectory",)))
    tensors = longer.state_dict()
    assert set(tensors) - set(plain.state_dict()) == {name for name in tensors if name.startswith("trajectory.")}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in plain.state_dict().items())


def test_a_trajectory_takes_new_variables_without_effect_too() -> None:
    before, model = (
        prior.read_prior(WEIGHTS / "tiny.safetensors", variables, ("trajectory",))
        for variables in (DEFAULT_VARIABLES, (*DEFAULT_VARIABLES, HEIGHT, HAND))
    )
    z, first = (torch.randn(2, model.tokens, PRESETS["tiny"].latent_width) for _ in range(2))
    t, years, known = torch.full((2,), 0.5), torch.tensor([3.0, 8.0]), [{"age": 40.0, "sex": "F"}, {}]
    given = [{**row, "height": 180.0, "hand": "left"} for row in known]
    expected = before.years(z, t, first, before.codes(known), years)
    assert torch.equal(model.years(z, t, first, model.codes(given), years), expected)


def test_the_shipped_flair_is_small_and_made_by_the_shipped_recipe_for_the_shipped_prior() -> None:
    from server.modality import ModalityRecipe

    record, about = (json.loads((WEIGHTS / f"tiny{kind}.json").read_text()) for kind in ("", ".FLAIR"))
    assert (WEIGHTS / "tiny.FLAIR.safetensors").stat().st_size <= 8 * 2**20
    assert ModalityRecipe.load(RECIPES / "flair_tiny.toml").model_dump(mode="json") == about["recipe"]
    assert about["prior"] == record["sha256"]


def test_another_modality_beside_the_prior_changes_nothing_of_it() -> None:
    plain, more = (prior.read_prior(WEIGHTS / "tiny.safetensors", parts=parts) for parts in ((), ("FLAIR",)))
    tensors = more.state_dict()
    assert set(tensors) - set(plain.state_dict()) == {name for name in tensors if name.startswith("others.FLAIR.")}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in plain.state_dict().items())


def test_a_modality_takes_new_variables_without_effect_too() -> None:
    before, model = (
        prior.read_prior(WEIGHTS / "tiny.safetensors", variables, ("FLAIR",))
        for variables in (DEFAULT_VARIABLES, (*DEFAULT_VARIABLES, HEIGHT, HAND))
    )
    z, first = (torch.randn(2, model.tokens, PRESETS["tiny"].latent_width) for _ in range(2))
    t, known = torch.full((2,), 0.5), [{"age": 40.0, "sex": "F"}, {}]
    codes = model.codes([{**row, "height": 180.0, "hand": "left"} for row in known])
    expected = before.modality("FLAIR").translation(z, t, first, before.codes(known))
    assert torch.equal(model.modality("FLAIR").translation(z, t, first, codes), expected)


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


@pytest.mark.parametrize("variables", [DEFAULT_VARIABLES[:-1], DEFAULT_VARIABLES[::-1], (HEIGHT, *DEFAULT_VARIABLES)])
def test_a_plan_that_changes_what_the_prior_knows_is_refused(variables: tuple[Continuous | Categorical, ...]) -> None:
    plan = TrainingPlan.load(RECIPES / "smoke.toml").but(release=RELEASE)
    with pytest.raises(PlanRefused, match="keep them first and unchanged, and add new variables after"):
        prior.load_prior(plan.but(variables=variables))


def test_new_variables_start_without_effect_and_can_be_trained() -> None:
    plan = TrainingPlan.load(RECIPES / "smoke.toml").but(release=RELEASE)
    before, model = prior.load_prior(plan), prior.load_prior(plan.but(variables=(*DEFAULT_VARIABLES, HEIGHT, HAND)))
    z, t = torch.randn(2, model.tokens, PRESETS["tiny"].latent_width), torch.full((2,), 0.5)
    known = [{"age": 40.0, "sex": "F"}, {}]
    given = [{**row, "height": 180.0, "hand": "left"} for row in known]
    expected = before.generator(z, t, before.codes(known))
    assert torch.equal(model.generator(z, t, model.codes(given)), expected)
    assert torch.equal(model.generator(z, t, model.codes(known)), expected)
    stage = small_stage("generator", "group:conditions")
    select_trainable(model, stage, seed=1)
    rows = (z, torch.randn_like(z), t, model.codes(given))
    row_loss("generator")(model, rows).sum().backward()
    fresh = {name: p for name, p in model.named_parameters() if name.startswith("generator.conditions.known.6.")}
    assert {name.rpartition(".")[2] for name in fresh} == {"weight", "bias"}
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in fresh.values())
    hand = model.generator.conditions.known[7].weight.grad
    assert hand is not None
    assert float(hand[1].abs().sum()) > 0
    assert float(hand[0].abs().sum()) == 0, "nobody here is right-handed"


def test_from_scratch_every_site_starts_with_the_same_weights_and_nobody_elses_random_state_moves() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two, other = (prior.from_scratch(SMALL, DEFAULT_VARIABLES, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.encoder.embed.weight, other.encoder.embed.weight)
    assert float(one.decoder.mean.max()) == pytest.approx(WHITE_LEVEL, abs=1e-5)
    assert not any(p.requires_grad for p in one.parameters())
