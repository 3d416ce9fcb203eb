"""The panel tells a generator that listens from one that does not, and says what was not measured."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.cohort import Patient, Scan
from braing3n_core.data.phantom import phantoms
from braing3n_core.data.template import template
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measure
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import load_prior
from simulations import quality

RECIPES = Path(quality.__file__).parent / "recipes"
TINY = PRESETS["tiny"]


def held_out(count: int) -> list[Patient]:
    public, people = template(TINY), []
    for number, (volume, truth) in enumerate(phantoms(TINY, count, 77, Hospital(name="new"))):
        measured = measure(volume, public, TINY.spacing_mm).ventricles_ml
        known = {"age": truth.age, "sex": truth.sex, "diagnosis": truth.diagnosis, "modality": "T1w", "ventricles": measured}
        people.append(Patient(f"sub-{number}", (Scan(volume, {**known, "lesions": truth.lesions_ml}),), held_out=True))
    return people


@pytest.mark.slow
def test_a_generator_that_does_not_listen_is_found_out() -> None:
    plan = TrainingPlan.load(RECIPES / "smoke.toml")
    deaf = load_prior(plan)
    with torch.no_grad():
        for known in deaf.generator.conditions.known:
            for parameter in known.parameters():
                parameter.zero_()
    rows, (requested, measured) = quality.panel(plan, {"prior": load_prior(plan), "private": deaf}, held_out(12))
    named = {row.name: row for row in rows}
    control = named["requested against measured ventricles"]
    assert control.prior is not None
    assert control.private is not None
    assert control.prior > 0.8
    assert abs(control.private) < 0.5
    assert len(requested) == len(measured) == quality.CONTROL_VOLUMES
    rebuilt = named["reconstruction of held-out patients"]
    assert rebuilt.baseline is not None
    assert rebuilt.prior is not None
    assert rebuilt.prior >= rebuilt.baseline + 3
    overlap, outside = named["overlap with the template's brain"], named["signal outside the brain"]
    similarity = named["similarity of pairs"]
    assert overlap.prior is not None
    assert overlap.prior >= 0.9
    assert outside.prior == 0
    assert similarity.prior is not None
    assert similarity.prior == pytest.approx(similarity.baseline, abs=0.05)
    for name in ("held-out patients that a generated one is like", "largest difference in tissue volumes"):
        assert all(value is not None and value >= 0 for value in (named[name].baseline, named[name].prior, named[name].private))
    assert named["Gaussian distance of generated from held-out patients"].note.startswith("6 against 6")
    assert all(row.non_private is None for row in rows), "an arm that was not trained has no numbers"
    values = [v for row in rows for v in (row.baseline, row.prior, row.private)]
    assert all(v is not None and math.isfinite(v) for v in values)


def test_a_handful_of_held_out_patients_still_has_a_coverage() -> None:
    few = np.random.default_rng(0).normal(size=(2, 5))
    assert quality._coverage(few, few) == 1.0
