"""The swap test finds a condition that is ignored, and says what else moved with one that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from braing3n_core.models.brain import Brain
from braing3n_core.plan import DEFAULT_VARIABLES
from braing3n_core.prior import SHIPPED, read_prior
from simulations import swap
from simulations.control import BRAIN


@pytest.mark.slow
def test_ventricles_act_and_a_deaf_generator_is_found_out(tmp_path: Path) -> None:
    model = read_prior(SHIPPED / "tiny.safetensors")
    with torch.no_grad():                                    # deaf to sex: both levels read as one
        model.generator.conditions.known[1].weight.copy_(model.generator.conditions.known[1].weight[:1].expand(2, -1))
    found = {row.variable: row for row in swap.swaps(model, 3, 1, 2)}
    assert set(found) == {variable.name for variable in DEFAULT_VARIABLES} - {"modality"}
    assert found["sex"].image == 0
    assert all(effect == 0 for effect in found["sex"].effects.values())
    larger = found["ventricles"]
    assert larger.image > 0
    assert larger.effects["ventricles_ml"] > 1
    assert larger.effects["ventricles_ml"] > abs(found["lesions"].effects["ventricles_ml"])
    assert larger.lesions_ml is None, "this model makes no FLAIR"
    swap.write(list(found.values()), tmp_path / "swap.json")
    assert len(json.loads((tmp_path / "swap.json").read_text())) == len(found) == len(swap.told(list(found.values()))) - 2


@pytest.mark.slow
def test_who_is_brought_to_volumes_changes_in_one_and_lesions_change_on_the_flair(model: Brain) -> None:
    rows = {row.variable: row for row in swap.swaps(model, 2, 1, 6)}
    found = {name: row.effects for name, row in rows.items()}
    assert found["ventricles"]["ventricles_ml"] > 1
    assert abs(found["ventricles"]["brain_ml"]) < 0.3
    assert found["brain"]["brain_ml"] > 1
    assert abs(found["brain"]["ventricles_ml"]) < 0.3
    assert rows["lesions"].lesions_ml is not None
    assert 15 < rows["lesions"].lesions_ml < 40, "18 ml more were asked for"
    assert all(abs(row.lesions_ml or 0.0) < 5 for name, row in rows.items() if name != "lesions")
    assert all(abs(found["lesions"][name]) < 0.3 for name in ("brain_ml", "ventricles_ml"))


@pytest.fixture
def model() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors", (*DEFAULT_VARIABLES, BRAIN), ("FLAIR", "steering"))
