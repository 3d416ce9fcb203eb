"""The public trajectory comes from phantoms alone, repeats to the byte, and fits the prior whose latents it is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core.data.patient import Wishes, people
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior
from server.optimise import Phase
from server.trajectory import TrajectoryRecipe, train_trajectory, visits_of

TINY = PRESETS["tiny"]
RECIPE = TrajectoryRecipe(
    preset="tiny", seed=3, people=6, visits=2, years=(11.0, 15.0), contrast=(0.0, 0.1), bias=(0.0, 0.05), folding=(0.0, 1.0),
    ema=0.9, trajectory=Phase(steps=2, batch=2, learning_rate=1e-3),
)  # fmt: skip


@pytest.mark.slow
def test_a_small_one_is_trained_twice_to_the_same_bytes_and_read_beside_the_prior(tmp_path: Path) -> None:
    said: list[str] = []
    made = [train_trajectory(RECIPE, tmp_path / name, said.append) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    for path in (SHIPPED / "tiny.safetensors", SHIPPED / "tiny.json"):
        shutil.copy(path, tmp_path / "one" / path.name)
    trajectory = read_prior(tmp_path / "one" / "tiny.safetensors", parts=("trajectory",)).years
    assert float(trajectory.scale) > 0.05
    rows = trajectory.pace.basis.flatten(1)
    products = rows @ rows.T / rows.shape[1]
    assert torch.allclose(products, torch.diag(products.diag().round()), atol=0.01), "orthogonal, of mean square 1"
    assert 2 <= int(products.diag().round().sum()) <= 12, "six people differ in fewer ways than there is room for"
    assert float(trajectory.pace.respond.weight.abs().max()) == 0, "the public's own pace is no shift"


def test_a_visit_is_described_as_a_hospital_would() -> None:
    (person,) = people(TINY, 1, 4, Hospital(name="x"), Wishes(visits=2, years=6.0))
    rows = visits_of(person, TINY)
    assert [row["age"] for row in rows] == [visit.age for visit in person.visits]
    assert [row["lesions"] for row in rows] == [visit.truth["lesions"] for visit in person.visits]
    assert {row["sex"] for row in rows} == {person.sex}
    assert float(str(rows[1]["ventricles"])) > float(str(rows[0]["ventricles"]))
