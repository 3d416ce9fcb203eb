"""A server holds sums, not sites: thirty cost it the memory of three. The rule that must hold every update is seen to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.plan import Aggregate, TrainingPlan
from simulations.bench.serving import as_json, bench, told

PLAN = TrainingPlan.load(Path(__file__).parents[3] / "simulations" / "recipes" / "smoke.toml")


def test_memory_of_the_mean_does_not_grow_with_sites() -> None:
    few, many = bench(PLAN, [3, 30], 0.4, 2, None, lambda text: None)
    assert (few.sites, many.sites, many.rule, many.rounds) == (3, 30, "mean", 2)
    assert many.copies == pytest.approx(few.copies, rel=0.1)


def test_a_median_holds_every_update_and_the_table_shows_it() -> None:
    few, many = bench(PLAN, [3, 30], 0.4, 1, Aggregate(rule="median"), lambda text: None)
    assert many.copies > few.copies + 20, "of 27 more"


def test_the_table_says_the_same_to_people_and_to_programs() -> None:
    rows = bench(PLAN, [2], 0.01, 1, None, lambda text: None)
    assert json.loads(as_json(rows))[0]["copies"] == rows[0].copies
    assert f"{rows[0].copies:.2f}" in "\n".join(told(rows))
