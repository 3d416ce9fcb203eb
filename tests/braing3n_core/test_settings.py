"""Both apps read the same words and come to the same plan, or to the same refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from braing3n_core.errors import Braing3nError, DataRefused, PlanRefused, UsageError
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import DEFAULTS, INSTALLED, Settings, folders, overridden

SMOKE = TrainingPlan.load(INSTALLED / "simulations" / "recipes" / "smoke.toml")
REAL = TrainingPlan.load(INSTALLED / "simulations" / "recipes" / "real_three_sites.toml")
RELATIVE: dict[str, Any] = DEFAULTS | {"plan": "simulations/recipes/smoke.toml"}


def test_a_relative_plan_is_the_installed_one_wherever_flower_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.read(RELATIVE, "17")
    assert settings.plan == SMOKE
    assert settings.out == Path.home() / "braing3n-runs" / "smoke-17"


def test_overrides_replace_what_they_name_and_nothing_else() -> None:
    plan = Settings.read(RELATIVE | {"epsilon": 6.0, "rounds": 5, "patients": 7, "seed": 9}, "1").plan
    assert (plan.privacy.epsilon, plan.seed) == (6.0, 9)
    assert {stage.rounds for stage in plan.stages} == {5}
    assert {site.patients for site in plan.sites} == {7}
    assert overridden(plan, epsilon=8.0, patients=24, seed=1).but(stages=list(SMOKE.stages)) == SMOKE


def test_settings_come_back_from_the_config_they_give(tmp_path: Path) -> None:
    data = tuple((site.name, tmp_path / f"a folder of {site.name}") for site in REAL.sites)
    for _, folder in data:
        folder.mkdir()
    settings = Settings(REAL, tmp_path, data)
    (tmp_path / "plan.json").write_text(REAL.canonical())
    assert Settings.read(settings.config(), "1") == settings


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"epsilon": -1.0}, PlanRefused),
        ({"rounds": -1}, PlanRefused),
        ({"epsilon": "8"}, UsageError),
        ({"seed": True}, UsageError),
        ({"plan": 3}, UsageError),
        ({"plan": "absent.toml"}, PlanRefused),
        ({"plan": "absent.json"}, PlanRefused),
        ({"out-dir": "relative"}, UsageError),
        ({"data": "site-a=/"}, PlanRefused),
        ({"data": "site-a=/ site-a=/"}, UsageError),
        ({"data": "site-a"}, UsageError),
    ],
)
def test_a_wrong_key_is_refused_by_name(changes: dict[str, Any], error: type[Braing3nError]) -> None:
    with pytest.raises(error):
        Settings.read(RELATIVE | changes, "1")


def test_every_site_of_a_real_study_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no data for site-b, site-c"):
        folders(REAL, [f"site-a={tmp_path}"])
    with pytest.raises(DataRefused, match="site-c: no folder"):
        folders(REAL, [f"site-a={tmp_path}", f"site-b={tmp_path}", "site-c=/absent"])
