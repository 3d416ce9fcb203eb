"""The prior and one flat array give the model, at every site and after every restart."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from braing3n_core.errors import PlanRefused, ReplyRefused
from braing3n_core.protocol import at_stage, change, digest_of, finished, initial_values
from braing3n_core.state import flatten
from privacy.dp_sgd import trainable
from tests.client.studies import brain, study

PLAN = study()


def values() -> list[np.ndarray]:
    return list(initial_values(brain(PLAN), PLAN))


def test_asking_for_the_first_values_leaves_the_prior_as_it_was() -> None:
    model = brain(PLAN)
    before = copy.deepcopy(model.state_dict())
    initial_values(model, PLAN)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not trainable(model)


def test_the_first_values_change_nothing() -> None:
    model = brain(PLAN)
    finished(model, PLAN, np.concatenate(values()))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), brain(PLAN).state_dict().values(), strict=True))


def test_values_come_back_from_the_stage_they_were_put_into() -> None:
    first, second = values()
    sent = np.concatenate([first + 0.1, second + 0.2]).astype(np.float32)
    model = brain(PLAN)
    at_stage(model, PLAN, "generator", sent)
    assert np.array_equal(flatten(trainable(model)), sent[len(first) :])
    assert not change(sent, dict(trainable(model))).any()


def test_a_finished_run_has_no_factors_left_and_nothing_trainable() -> None:
    model = brain(PLAN)
    finished(model, PLAN, np.concatenate(values()) + np.float32(0.01))
    assert set(model.state_dict()) == set(brain(PLAN).state_dict())
    assert not trainable(model)


@pytest.mark.parametrize("cut", [1, -1])
def test_values_of_another_model_are_refused(cut: int) -> None:
    sent = np.concatenate(values())
    sent = sent[:-1] if cut > 0 else np.append(sent, np.float32(0))
    with pytest.raises(ReplyRefused):
        at_stage(brain(PLAN), PLAN, "generator", sent)
    with pytest.raises(ReplyRefused):
        at_stage(brain(PLAN), PLAN, "decoder", sent)


def test_values_with_nan_are_refused() -> None:
    sent = np.concatenate(values())
    sent[0] = math.nan
    with pytest.raises(ReplyRefused, match="NaN"):
        at_stage(brain(PLAN), PLAN, "generator", sent)


def test_a_stage_the_plan_does_not_have_is_refused() -> None:
    with pytest.raises(PlanRefused, match="no stage"):
        at_stage(brain(PLAN), PLAN, "encoder", np.concatenate(values()))


def test_one_changed_bit_is_another_digest() -> None:
    sent = np.arange(4, dtype=np.float32)
    other = sent.copy()
    other[2] = np.nextafter(other[2], np.float32(9))
    assert digest_of(sent) != digest_of(other)
    assert digest_of(sent) == digest_of(sent.astype(">f4"))
