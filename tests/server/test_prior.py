"""A prior run that is stopped goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from braing3n_core.errors import PlanRefused
from server.optimise import Phase, fit
from server.prior import PriorRecipe


def descend(kept: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)

    def loss_at(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return (layer(x) - 1).square().mean()

    phase = Phase(steps=600, batch=4, learning_rate=1e-2)
    return fit("toy", dict(layer.named_parameters()), loss_at, phase, 0.99, kept, lambda _: None)


@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = descend(tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        descend(tmp_path / "broken.safetensors", stop_at=300)
    resumed = descend(tmp_path / "broken.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_recipe_with_an_unknown_key_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("presets = 'tiny'\n")
    with pytest.raises(PlanRefused) as refusal:
        PriorRecipe.load(tmp_path / "r.toml")
    assert "\n" not in str(refusal.value)
