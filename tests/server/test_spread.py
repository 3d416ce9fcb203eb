"""How the prior's people are spread is measured twice to the same bytes, and is read beside the prior it is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from braing3n_core.prior import SHIPPED, read_prior
from server.spread import SpreadRecipe, measure_spread


@pytest.mark.slow
def test_it_is_measured_twice_to_the_same_bytes_and_read_beside_the_prior(tmp_path: Path) -> None:
    recipe = SpreadRecipe(preset="tiny", seed=5, people=20, steps=3)
    said: list[str] = []
    made = [measure_spread(recipe, tmp_path / name, said.append) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert said[-1] == "people: 20 of 20"
    for path in (SHIPPED / "tiny.safetensors", SHIPPED / "tiny.json"):
        shutil.copy(path, tmp_path / "one" / path.name)
    few, many = (read_prior(folder / "tiny.safetensors", parts=("spread",)).spreading for folder in (tmp_path / "one", SHIPPED))
    ratio = (few.usual / many.usual).log()
    assert float(ratio.mean().abs()) < 0.7, "twenty people in three steps are of that order"
    assert float(few.logs.code.abs().max()) == 0, "people of the prior are spread as they are"
