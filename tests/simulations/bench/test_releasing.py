"""The road from a model to a signed release is measured on the commands' own code, and nothing of it is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.plan import TrainingPlan
from simulations.bench.releasing import STEPS, Row, _sized, as_json, bench, told

PLAN = TrainingPlan.load(Path(__file__).parents[3] / "simulations" / "recipes" / "smoke.toml")


def test_a_plan_of_another_size_keeps_its_cells_in_proportion() -> None:
    cell = PLAN.release.cells[0]
    two = PLAN.but(release=PLAN.release.model_copy(update={"cells": (cell, cell.model_copy(update={"count": 12}))}))
    assert [one.count for one in _sized(two, 100).release.cells] == [25, 75]
    assert sum(one.count for one in _sized(two, 7).release.cells) == 7


@pytest.mark.slow
def test_every_step_is_timed_and_the_release_is_signed(tmp_path: Path) -> None:
    (row,) = bench(PLAN, [2], tmp_path, lambda text: None)
    assert set(row.wall) == set(row.processor) == set(STEPS)
    assert (tmp_path / "release-2" / "release" / "model.sig").exists()
    assert (row.volumes, row.candidates) == (2, 6)
    assert row.peak_mb > 100
    assert all(least > 0 for least in row.least.values())
    assert set(row.least) == {"generate", "gate", "build"}


def test_the_table_says_the_same_to_people_and_to_programs() -> None:
    row = Row(2, 6, dict.fromkeys(STEPS, 2.0), dict.fromkeys(STEPS, 1.0), {"generate": 0.5}, 900.0, 3.0)
    assert (row.waited, row.worked) == (8.0, 4.0)
    assert json.loads(as_json([row]))[0]["worked"] == 4.0
    assert "2.00" in "\n".join(told([row]))
    assert "times the floor: generate 2.0" in "\n".join(told([row]))
