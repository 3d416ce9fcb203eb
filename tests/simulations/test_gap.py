"""What a generator is given at best is what patients have, and the table says which part of the way each arm goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings
from simulations.gap import as_json, gap, give_common, give_population, told
from simulations.joining import cohort_of
from tests.client.studies import PEOPLE
from tests.small import small_brain

RECIPES = Path(__file__).parents[2] / "simulations" / "recipes"


def test_a_shift_that_conditions_explain_is_found_again() -> None:
    model, other = small_brain(), small_brain()
    codes = model.codes([{"age": 20.0 + i % 60, "sex": "FM"[i % 2], "ventricles": 20.0 + i % 7} for i in range(400)])
    with torch.no_grad():
        for one in (model, other):
            basis = torch.linalg.qr(torch.randn(one.centre.numel(), 16, generator=torch.Generator().manual_seed(1)))[0].T
            one.generator.population.basis.copy_((basis * one.centre.numel() ** 0.5).reshape_as(one.generator.population.basis))
            one.generator.common.code.zero_()
        everybody = torch.randn(model.centre.shape, generator=torch.Generator().manual_seed(2))
        wanted = model.generator.population(codes)
        give_population(other, wanted, codes)
        assert torch.allclose(other.generator.shift(codes), wanted, atol=0.05 * float(wanted.abs().max()))
        give_common(other, wanted + everybody, codes)
        left = (wanted + everybody - other.generator.shift(codes)).mean(0)
    assert float(left.norm()) < 1e-3 * float(everybody.norm())


def test_one_patient_is_too_few_to_tell() -> None:
    with pytest.raises(DataRefused, match="at least two"):
        gap(TrainingPlan.load(RECIPES / "smoke.toml"), [PEOPLE[0]], PEOPLE, lambda _: None)


@pytest.mark.slow
def test_each_arm_brings_people_nearer_and_the_tokenizer_is_the_end(tmp_path: Path) -> None:
    plan = TrainingPlan.load(RECIPES / "smoke.toml")
    assert plan.rehearsal is not None
    strange = [one.model_copy(update={"contrast": 0.2, "bias": 0.2}) for one in plan.rehearsal.hospitals]
    quick = plan.release.model_copy(update={"steps": 3})
    plan = plan.but(rehearsal=plan.rehearsal.model_copy(update={"hospitals": tuple(strange)}), release=quick)
    cohorts = [cohort_of(Settings(plan, tmp_path), site.name, lambda _: None) for site in plan.sites]
    training, held_out = ([one for cohort in cohorts for one in getattr(cohort, part)] for part in ("training", "held_out"))
    said: list[str] = []
    found = gap(plan, training, held_out, said.append)
    prior, population, place, spread, rebuilt = found.arms.values()
    assert prior.distance > population.distance
    assert prior.frechet > place.frechet
    assert rebuilt.distance < prior.distance
    assert spread.distance < prior.distance
    assert 0 < found.distances.directions <= 1
    assert (found.distances.patients, found.held_out) == (len(training), len(held_out))
    assert len(said) == len(found.arms)
    table = list(told(found))
    assert len(table) == 2 + len(found.arms) + 1
    assert not any("nan" in line for line in table)
    assert json.loads(as_json(found))["arms"].keys() == found.arms.keys()
