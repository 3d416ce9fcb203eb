"""Only what the stage names is trained, and folding low-rank factors in changes nothing that can be seen."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import PlanRefused
from braing3n_core.models.trainable import GROUPS, NETWORKS, merge, select_trainable
from privacy.dp_sgd import trainable
from tests.small import SMALL, small_brain, stage


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stage_never_touches_another_stages_network(name: str) -> None:
    part = {"trajectory": ["trajectory"], "spread": ["spread"], "contrast": ["FLAIR"]}.get(name, [])
    low_rank = [] if name == "spread" else ["lora:2"]        # it has no linear map
    for what in ("all", *low_rank, *(f"group:{group}" for group in GROUPS[name])):
        model = small_brain(*part)
        select_trainable(model, stage(name, what), seed=0)
        names = trainable(model)
        assert names
        assert all(n.startswith(tuple(f"{network}." for network in NETWORKS[name])) for n in names), what


def test_new_factors_change_nothing_and_sites_draw_the_same_ones() -> None:
    one, two, plain = small_brain(), small_brain(), small_brain()
    for model in (one, two):
        select_trainable(model, stage("generator", "lora:3"), seed=5)
    z, t, codes = torch.randn(1, one.tokens, SMALL.latent_width), torch.full((1,), 0.3), one.codes([{"age": 40.0}])
    assert torch.allclose(one.generator(z, t, codes), plain.generator(z, t, codes))
    fixed = {name: p for name, p in one.named_parameters() if "down" in name}
    assert fixed
    assert all(torch.equal(p, dict(two.named_parameters())[name]) for name, p in fixed.items())


def test_merging_keeps_the_function_and_the_names() -> None:
    model, names = small_brain(), set(small_brain().state_dict())
    select_trainable(model, stage("generator", "lora:3"), seed=5)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_()
    z, t, codes = torch.randn(2, model.tokens, SMALL.latent_width), torch.rand(2), model.codes([{"age": 40.0}] * 2)
    before = model.generator(z, t, codes)
    merge(model)
    assert torch.allclose(model.generator(z, t, codes), before, atol=1e-4)
    assert set(model.state_dict()) == names


def test_a_group_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(PlanRefused, match="style"):
        select_trainable(small_brain(), stage("decoder", "group:styles"), seed=0)
