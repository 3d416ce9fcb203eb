"""The attack finds a generator that learned its patients by heart, and says nothing of one that never saw them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.cohort import Patient
from braing3n_core.errors import PlanRefused
from braing3n_core.models.brain import Brain
from braing3n_core.training import draw_rows, prepare, row_loss
from privacy.membership import membership
from simulations import membership as attacking
from simulations.membership import Attacked, attack_run, gains, in_words, lowest
from tests.client.studies import patient, study
from tests.small import small_brain

PRIOR = small_brain()
MEMBERS, OUTSIDERS, REFERENCE = ([patient(100 * group + n) for n in range(20)] for group in (1, 2, 3))


def trained_by_heart(patients: list[Patient]) -> Brain:
    model, generator = copy.deepcopy(PRIOR), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.generator.parameters(), 1e-2)
    tensors = [prepare("generator", model, one.scans).tensors for one in patients]
    batch = tuple(torch.cat(column) for column in zip(*tensors, strict=True))
    for _ in range(150):
        optimizer.zero_grad()
        row_loss("generator")(model, draw_rows("generator", batch, model, 24, generator)).mean().backward()
        optimizer.step()
    return model


def test_the_public_prior_itself_gives_nobody_away() -> None:
    assert np.array_equal(gains(PRIOR, PRIOR, MEMBERS), np.zeros(20))


@pytest.mark.slow
def test_a_generator_that_learned_its_patients_by_heart_is_found_out() -> None:
    model = trained_by_heart(MEMBERS)
    found = membership(*(gains(model, PRIOR, group) for group in (MEMBERS, OUTSIDERS, REFERENCE)), lowest(20))
    assert found.auc.low > 0.5, found                        # 20 people set a threshold roughly: the share above it varies
    assert found.attack.value > found.control.value


def test_scores_do_not_depend_on_who_else_is_scored() -> None:
    model = copy.deepcopy(PRIOR)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(0.01)
    assert np.array_equal(gains(model, PRIOR, MEMBERS[:3]), gains(model, PRIOR, MEMBERS)[:3])


@pytest.mark.parametrize(("reference", "rate"), [(10, 0.1), (100, 0.01), (1000, 0.01)])
def test_the_rate_of_false_alarms_is_as_low_as_the_group_allows(reference: int, rate: float) -> None:
    assert lowest(reference) == rate


def test_a_leak_and_its_absence_are_said() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(0, 1, (2, 60))
    quiet, loud = (Attacked("generator", 60, 60, membership(rng.normal(by, 1, 60), *others, 0.05)) for by in (0.0, 4.0))
    assert quiet.in_words().endswith("no more than the control")
    assert loud.in_words().endswith("LEAKS")
    assert "proves nothing" in list(in_words([quiet]))[-1]
    assert json.loads(json.dumps(loud.as_json()))["leaks"] is True


def test_nobody_may_try_it_on_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "finished_run", lambda run, prior: (study(), PRIOR))
    with pytest.raises(PlanRefused, match="nobody's to find out"):
        attack_run(tmp_path, lambda text: None)
