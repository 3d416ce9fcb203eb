"""What a site more costs the server is counted in updates, from whole runs of plans that differ in their sites alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.plan import TrainingPlan
from simulations.bench.crowd import Crowd, _sized, as_json, growth, told

PLAN = TrainingPlan.load(Path(__file__).parents[3] / "simulations" / "recipes" / "smoke.toml")
FEW, MANY = Crowd(3, 5, 8.0, 1000.0, 4.0), Crowd(30, 5, 8.0, 1216.0, 40.0)


def test_plans_of_any_number_of_sites_ask_for_all_of_them_and_for_the_same_training() -> None:
    few, many = _sized(PLAN, 3, 5), _sized(PLAN, 30, 5)
    assert (len(few.sites), len(many.sites)) == (few.federation.quorum, many.federation.quorum) == (3, 30)
    assert few.stages == many.stages
    assert few.stages[0].rounds == 5


def test_memory_is_told_in_updates_for_each_site_more() -> None:
    assert growth(FEW, MANY) == pytest.approx(1.0)
    assert growth(FEW, FEW) is None
    lines = list(told([FEW, MANY]))
    assert "1.00" not in lines[1]
    assert "1.00" in lines[2]
    assert json.loads(as_json([FEW, MANY]))[1]["peak_mb"] == 1216.0
