"""Everybody is held against the same unseen people, and the fewest evaluations are told honestly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from braing3n_core.models.brain import Brain
from braing3n_core.plan import DEFAULT_VARIABLES
from simulations.baselines import table
from simulations.baselines.latent_diffusion import LatentDiffusion
from simulations.baselines.table import MONAI, OURS, PCA, REAL, Made
from tests.small import SMALL

GRID = dataclasses.replace(SMALL, shape=(32, 48, 32), spacing_mm=(5.5, 4.5, 6.0), patch=(8, 8, 4))


@pytest.fixture(scope="module")
def arms() -> table.Arms:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_FITTED", 70)
        ours, theirs = Brain(GRID, DEFAULT_VARIABLES).eval(), LatentDiffusion(GRID.shape, DEFAULT_VARIABLES).eval()
        with torch.no_grad():                                # what begins at zero would make everybody alike
            for parameter in (*ours.parameters(), *theirs.parameters()):
                parameter.add_(0.05 * torch.randn_like(parameter))
        return table.arms(ours, theirs, 32, lambda _: None)


@pytest.mark.slow
def test_every_arm_keeps_the_same_scans(arms: table.Arms) -> None:
    rows = table.kept(arms, arms.unseen.volumes[:4], "phantoms")
    assert [row.arm for row in rows] == ["mean volume", PCA, PCA, MONAI, OURS]
    assert [row.numbers for row in rows] == [0, 64, 512, 3 * 8 * 12 * 8, arms.ours.centre.numel()]
    assert all(row.low <= row.psnr <= row.high for row in rows)
    kept = {row.arm: row.psnr for row in rows}
    assert kept[PCA] > kept["mean volume"] + 3, "components of phantoms keep phantoms"


@pytest.mark.slow
def test_every_sampler_makes_people_of_the_unseen_ones_conditions(
    arms: table.Arms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(table, "_HEUN", (1, 2))
    monkeypatch.setattr(table, "_DDIM", (1, 2))
    rows, people = table.made(arms, lambda _: None)
    assert [(row.arm, row.evaluations) for row in rows] == [(OURS, 1), (OURS, 3), (MONAI, 1), (MONAI, 2), (PCA, 1), (REAL, 0)]
    assert {name: len(each) for name, each in people.items()} == {OURS: 32, MONAI: 32, PCA: 32}
    told = {row.arm: row for row in rows}
    assert told[PCA].ventricles > 0.8, "what is asked for comes, where people are linear in it"
    assert told[REAL].ventricles == pytest.approx(1.0), "other people are asked for what they have"
    assert all(row.seconds > 0 for row in rows if row.arm != REAL)
    flops = {"autoencoder": (2.0, 3.0)}
    table.write(table.kept(arms, arms.unseen.volumes[:4], "phantoms"), rows, flops, tmp_path / "baselines.json")
    found = json.loads((tmp_path / "baselines.json").read_text())
    assert len(found["made"]) == 6
    assert found["training_flops"] == {"autoencoder": {"ours": 2.0, "theirs": 3.0}}
    assert table.picture(arms, people).startswith(b"\x89PNG")


def row(arm: str, evaluations: int, frechet: float, seconds: float) -> Made:
    return Made(arm, evaluations, seconds, 0.0, frechet, 10 - frechet, 1.0, 0.1, 0.9, 0.9)


def test_the_fewest_evaluations_count_only_if_they_are_as_good_as_was_asked() -> None:
    ours = [row(OURS, 3, 2.0, 0.1), row(OURS, 5, 1.05, 0.2), row(OURS, 23, 1.0, 0.9)]
    rows = [*ours, row(MONAI, 50, 8.0, 4.0), row(MONAI, 100, 9.0, 8.0)]
    assert table.cheapest(rows, OURS, "frechet", table.best(rows, OURS, "frechet")).evaluations == 5
    assert table.cheapest(rows, MONAI, "frechet", table.best(rows, MONAI, "frechet")).evaluations == 50
    assert table.cheapest(rows, MONAI, "linear", table.best(rows, MONAI, "linear")).evaluations == 100, "the other way round"
    *_, each, both, each_linear, both_linear, spent = table.told([], rows, {"generator": (1.0, 2.0)})
    assert "as each gets by Frechet, ours needs 5 evaluations, MONAI's 50; volumes a second, ours over theirs: 20.0" in each
    assert "as both get by Frechet, ours needs 3 evaluations, MONAI's 50; volumes a second, ours over theirs: 40.0" in both
    assert "as each gets by linear, ours needs 3 evaluations, MONAI's 100" in each_linear
    assert "as both get by linear, ours needs 3 evaluations, MONAI's 50" in both_linear
    assert spent.endswith("generator 2.00")
