"""The benchmark finds a label that was planted in the volumes, and says when there is nothing to tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan
from simulations import probe
from tests.client.studies import study
from tests.small import SMALL, small_brain

PLAN = study()
RECIPES = Path(__file__).parents[2] / "simulations" / "recipes"


def people(visits: int = 2) -> probe.People:
    """Brightness is age; the second half is the other site."""
    ages = [20.0 + row for row in range(24) for _ in range(visits)]
    names = [f"s/sub-{row:02d}" for row in range(24) for _ in range(visits)]
    noise = torch.rand(len(ages), 1, *SMALL.shape, generator=torch.Generator().manual_seed(1))
    volumes = noise * 0.2 + torch.tensor(ages).view(-1, 1, 1, 1, 1) / 60
    site = ["north" if age < 32 else "south" for age in ages]
    return probe.People(tuple(names), volumes, {"age": tuple(ages), "sex": ("F",) * len(ages), "site": tuple(site)})


@pytest.mark.parametrize("recipe", ["real_three_sites.toml", "demo.toml", "three_sites_dp.toml"])
@pytest.mark.parametrize("sites", [["a=x"], ["a=x", "b=y"]])
def test_any_recipe_says_how_any_number_of_folders_is_read(recipe: str, sites: list[str]) -> None:
    base = TrainingPlan.load(RECIPES / recipe)
    plan = probe.plan_for(base, sites)
    assert [site.name for site in plan.sites] == [word[0] for word in sites]
    assert (plan.model, plan.variables, plan.data) == (base.model, base.variables, base.data)


def test_a_planted_label_is_read_from_tokens_and_voxels_and_not_from_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    scores = probe.benchmark(PLAN, small_brain(), people(), said.append)
    table = {(row.target, row.features): row for row in scores}
    assert {row.target for row in scores} == {"age", "site"}
    assert any(line.startswith("sex") for line in said), "one level only"
    assert table["age", "tokens, mean"].value < 0.5 * table["age", "nothing"].value
    assert table["age", "voxels"].value < 0.2 * table["age", "nothing"].value
    assert table["age", "PCA, 32 of voxels"].value < 0.5 * table["age", "nothing"].value
    assert table["site", "voxels"].value > 0.9
    assert table["site", "nothing"].value <= 0.6
    assert all(row.people == 24 and row.low <= row.value <= row.high for row in scores)
    assert (table["age", "nothing"].unit, table["site", "nothing"].unit) == ("year", "accuracy")
    probe.write(scores, tmp_path / "probe.json")
    assert len(json.loads((tmp_path / "probe.json").read_text())) == len(scores) == len(probe.told(scores)) - 1


def test_the_recipe_lends_its_grid_and_nothing_else(tmp_path: Path) -> None:
    recipe = TrainingPlan.load(Path(probe.__file__).parent / "recipes" / "demo.toml")
    plan = probe.plan_for(recipe, ["here=/x", "there=/y"])
    assert [site.name for site in plan.sites] == ["here", "there"]
    assert plan.rehearsal is None
    assert plan.data == recipe.data
    with pytest.raises(DataRefused, match="--data site=DIR"):
        probe.plan_for(recipe, [])
