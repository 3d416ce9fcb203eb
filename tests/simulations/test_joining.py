"""What joining is worth: every site's own held-out patients, the same in every arm, and noise of its own when alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings
from server.plan_check import check
from simulations.joining import Number, Row, _short, as_json, by_itself, compare, told

RECIPES = Path(__file__).parents[2] / "simulations" / "recipes"
SMOKE = TrainingPlan.load(RECIPES / "smoke.toml")
ROW = Row("site-a", "reconstruction", "dB", 11, {arm: Number(20.0, 19.0, 21.0) for arm in ("prior", "alone", "together")},  # type: ignore[misc]
          Number(0.1, -0.1, 0.3))  # fmt: skip


@pytest.mark.parametrize("recipe", ["smoke.toml", "three_sites_dp.toml", "real_three_sites.toml"])
def test_alone_is_the_same_plan_of_one_site_with_its_whole_budget(recipe: str) -> None:
    plan = TrainingPlan.load(RECIPES / recipe)
    name = plan.sites[-1].name
    alone = by_itself(plan, name)
    assert alone.sites == (plan.site(name),)
    assert (alone.privacy.mechanism, alone.privacy.epsilon) == ("local", plan.privacy.epsilon)
    assert [stage.trainable for stage in alone.stages] == [stage.trainable for stage in plan.stages]
    assert check(alone).epsilon <= plan.privacy.epsilon
    if alone.rehearsal and alone.rehearsal.hospitals:
        assert [one.name for one in alone.rehearsal.hospitals] == [name]


def test_the_table_says_means_intervals_and_the_gain() -> None:
    lines = list(told([ROW]))
    assert "20 (19 to 21)" in lines[1]
    assert "0.1 (-0.1 to 0.3)" in lines[1]
    assert json.loads(as_json([ROW]))[0]["gain"] == {"value": 0.1, "low": -0.1, "high": 0.3}


@pytest.mark.slow
def test_every_site_has_every_measure_of_every_arm(tmp_path: Path) -> None:
    rows = compare(Settings(SMOKE, tmp_path), 1, lambda _: None)
    assert {row.site for row in rows} == {site.name for site in SMOKE.sites}
    assert {"reconstruction", "ventricles of such a person", "brain of such a person"} <= {row.what for row in rows}
    for row in rows:
        assert row.people >= 2
        assert set(row.arms) == {"prior", "alone", "together"}
        assert all(one.low <= one.value <= one.high for one in (*row.arms.values(), row.gain))
        sign = 1 if row.unit == "dB" else -1
        assert np.isclose(row.gain.value, sign * (row.arms["together"].value - row.arms["alone"].value))


def test_a_difference_of_nothing_is_told_as_nothing() -> None:
    assert _short(Number(-5e-18, -0.152, 0.152)) == "0 (-0.152 to 0.152)"
    assert _short(Number(133.6, 83.8, 187.2)) == "134 (83.8 to 187)"
