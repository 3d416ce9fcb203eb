"""Runs side by side are what their summaries say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan
from simulations.compare import read, told

SMOKE = TrainingPlan.load(Path(__file__).parents[2] / "simulations" / "recipes" / "smoke.toml")


def run_of(folder: Path, epsilon: object, private: float, plan: TrainingPlan = SMOKE) -> Path:
    folder.mkdir()
    (folder / "plan.json").write_text(plan.canonical())
    row = {"name": "distance", "unit": "KID", "better": "lower", "prior": 0.08, "private": private, "non_private": None}
    privacy = [{"site": "site-a", "epsilon": 0.5}, {"site": "site-b", "epsilon": epsilon}]
    (folder / "summary.json").write_text(json.dumps({"study": "s", "privacy": privacy, "quality": [row]}))
    return folder


def test_a_column_for_each_run(tmp_path: Path) -> None:
    free = SMOKE.but(question="another")
    runs = read([run_of(tmp_path / "three", 3.0, 0.04), run_of(tmp_path / "free", "infinite", 0.01, free)])
    head, spent, distance = (line.split() for line in told(runs))
    assert head == ["prior", "three", "free"]
    assert spent == ["epsilon", "spent", "0", "3", "infinite"]
    assert distance == ["distance", "0.08", "0.04", "0.01", "KID,", "lower"]


def test_runs_of_other_seeds_are_one_column_with_an_interval(tmp_path: Path) -> None:
    three = [run_of(tmp_path / f"r{seed}", 3.0, 0.01 * seed, SMOKE.but(seed=seed)) for seed in (1, 2, 3)]
    head, spent, distance, note = told(read(three))
    assert head.split() == ["prior", "r1,", "3", "runs"]
    assert spent.split() == ["epsilon", "spent", "0", "3"]
    assert distance.split() == ["distance", "0.08", "+-", "0", "0.02", "+-", "0.025", "KID,", "lower"], "4.303 x 0.01 / sqrt(3)"
    assert "differ in the seed alone" in note


@pytest.mark.parametrize("text", [None, "", "[]", '{"study": "s"}'])
def test_what_is_no_finished_run_is_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataRefused, match="no finished run in"):
        read([tmp_path])
