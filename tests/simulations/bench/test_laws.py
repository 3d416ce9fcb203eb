"""A law that holds is found, and a point that breaks it is told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.plan import TrainingPlan
from simulations.bench.laws import ALLOWED, Row, as_json, bench, fitted, points, told

RECIPES = Path(__file__).parents[3] / "simulations" / "recipes"
ROW = Row("seconds", "patients", 8, 1, 216, 1000, 2.0, 2.1)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50)), min_size=3, max_size=9))
def test_constants_of_a_law_that_holds_are_found(a: float, b: float, sizes: list[tuple[float, float]]) -> None:
    x, y = (np.array(column) for column in zip(*sizes, strict=True))
    measured = a * x + b * y
    assert np.allclose(fitted(measured.tolist(), x.tolist(), y.tolist()), measured, rtol=1e-6)


def test_a_law_that_a_point_breaks_is_over() -> None:
    assert "within" in list(told([ROW]))[2]
    assert "OVER" in list(told([ROW, replace(ROW, told=2.0 * (1 + ALLOWED) + 0.1)]))[3]
    assert json.loads(as_json([ROW]))[0]["apart"] == pytest.approx(0.05)


def test_every_axis_is_varied_around_one_middle() -> None:
    assert {point.varied for point in points()} == {"patients", "views", "tokens", "weights"}
    assert len({point.preset.tokens for point in points()}) == 4
    assert len({point.size.parameters["generator"] for point in points()}) >= 4


@pytest.mark.slow
def test_real_steps_and_a_real_server_are_measured() -> None:
    said: list[str] = []
    chosen = [point for point in points() if point.patients <= 6 and point.views == 1] + [points()[5]]
    rows = bench(TrainingPlan.load(RECIPES / "smoke.toml"), chosen, 1, said.append)
    assert {row.law for row in rows} == {"seconds", "megabytes", "server seconds", "server copies"}
    assert all(row.measured > 0 and np.isfinite(row.told) for row in rows)
    assert len(said) == len(chosen) + 1
