"""A rehearsal's hospitals are BIDS folders: one scan of everybody, or patients who come back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from braing3n_core.data.bids import read_bids
from braing3n_core.data.hospital import write_hospital
from braing3n_core.plan import DEFAULT_VARIABLES, TrainingPlan

RECIPES = Path(__file__).parents[3] / "simulations" / "recipes"


def small(recipe: str) -> TrainingPlan:
    plan = TrainingPlan.load(RECIPES / recipe)
    return plan.but(sites=[site.model_copy(update={"patients": 2}) for site in plan.sites])


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "visits"), [("demo.toml", 1), ("longitudinal.toml", 3)])
def test_everybody_has_the_visits_that_the_recipe_says(tmp_path: Path, recipe: str, visits: int) -> None:
    plan = small(recipe)
    for site in plan.sites[:2]:
        write_hospital(tmp_path / site.name, site, plan)
        entries, excluded = read_bids(tmp_path / site.name, DEFAULT_VARIABLES)
        assert not excluded
        assert [len(entry.scans) for entry in entries] == [visits] * 2
        ages = [float(str(entries[0].at(scan.session)["age"])) for scan in entries[0].scans]
        gaps = [later - earlier for earlier, later in itertools.pairwise(ages)]
        assert gaps == pytest.approx([plan.rehearsal.years if plan.rehearsal else 0.0] * (visits - 1), abs=0.11)
    first, second = ((tmp_path / site.name / "participants.tsv").read_text() for site in plan.sites[:2])
    assert first != second
    before = sorted((tmp_path / plan.sites[0].name).rglob("*"))
    write_hospital(tmp_path / plan.sites[0].name, plan.sites[0], plan)
    assert sorted((tmp_path / plan.sites[0].name).rglob("*")) == before


@pytest.mark.slow
def test_a_share_of_patients_has_a_tumour_and_the_table_says_who(tmp_path: Path) -> None:
    plan = TrainingPlan.load(RECIPES / "tumour.toml")
    site = plan.sites[0].model_copy(update={"patients": 12})
    write_hospital(tmp_path / "a", site, plan)
    entries, excluded = read_bids(tmp_path / "a", plan.variables)
    assert not excluded
    assert {str(entry.at("")["tumour"]) for entry in entries} == {"yes", "no"}


def test_a_recipe_without_visits_says_nothing_of_them() -> None:
    assert "visits" not in TrainingPlan.load(RECIPES / "demo.toml").canonical()
    assert "tumours" not in TrainingPlan.load(RECIPES / "demo.toml").canonical()
    assert '"visits":3' in TrainingPlan.load(RECIPES / "longitudinal.toml").canonical()
