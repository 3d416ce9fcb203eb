"""The baseline goes on where it was stopped, keeps to its folder, and takes as much arithmetic as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from braing3n_core.errors import UsageError
from simulations.baselines import training
from simulations.baselines.training import BaselineRecipe, arithmetic, trained
from simulations.recipe_files import RECIPES


def few(folder: Path, **changes: object) -> BaselineRecipe:
    """A recipe of two steps, on the phantoms of a prior of a few."""
    shipped = (RECIPES / "prior_tiny.toml").read_text(encoding="utf-8")
    (folder / "prior.toml").write_text(shipped.replace("people = 4000", "people = 4").replace("varied = 3000", "varied = 3"))
    phase = {"steps": 2, "batch": 1, "learning_rate": 1e-3}
    told = {"preset": "tiny", "seed": 1, "prior": folder / "prior.toml", "ema": 0.5, "autoencoder": phase, "diffusion": phase}
    return BaselineRecipe.model_validate(told | changes)


@pytest.mark.slow
def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, said = few(tmp_path), []
    whole = trained(recipe, tmp_path / "whole", said.append)
    with monkeypatch.context() as patch:
        patch.setattr(training, "public_people", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, tmp_path / "broken", said.append)
    resumed = trained(recipe, tmp_path / "broken", said.append)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert float(whole.scale) != 1.0
    heard = len(said)
    again = trained(recipe, tmp_path / "whole", said.append)
    assert len(said) == heard, "what is trained is read"
    assert torch.equal(again.scale, whole.scale)
    with pytest.raises(UsageError, match="another recipe"):
        trained(few(tmp_path, seed=2), tmp_path / "whole", said.append)


def test_a_prior_of_another_preset_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its own preset"):
        trained(few(tmp_path, preset="small"), tmp_path / "out", lambda _: None)


@pytest.mark.slow
def test_the_shipped_recipe_takes_as_much_arithmetic_as_the_prior_did() -> None:
    spent = arithmetic(BaselineRecipe.load(RECIPES / "monai_tiny.toml"))
    assert set(spent) == {"autoencoder", "generator"}
    for ours, theirs in spent.values():
        assert theirs == pytest.approx(ours, rel=0.02)
