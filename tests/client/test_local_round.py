"""What one local round must never do: train longer than paid for, divide by a count, or let one patient through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.models.trainable import select_trainable
from braing3n_core.plan import DEFAULT_VARIABLES, Stage
from braing3n_core.training import Prepared
from client import local_round
from client.local_round import train_round
from privacy.dp_sgd import trainable
from privacy.errors import MechanismRefused
from privacy.events import NonPrivate, SampledGaussian
from privacy.randomness import ReplayableNoise, SecretNoise

STAGE = Stage(name="generator", trainable="lora:1", rounds=3, local_steps=1, sample_rate=1.0, views=2, clip=0.5,
              learning_rate=0.1, momentum=0.9, share=1.0)  # fmt: skip
DECLARED = 10
FREE = NonPrivate("generator")


def brain(stage: Stage = STAGE) -> Brain:
    torch.manual_seed(0)
    model = Brain(PRESETS["tiny"], DEFAULT_VARIABLES)
    # A fresh generator ends in zeros, so its inner gradients vanish; a trained one does not.
    torch.nn.init.normal_(model.generator.leave.weight, std=0.1)
    select_trainable(model, stage, seed=1)
    return model


def people(count: int, scale: float = 1.0) -> list[Prepared]:
    generator = torch.Generator().manual_seed(3)
    tokens, channels = brain().centre.shape
    return [
        Prepared((scale * torch.randn(1 + p % 2, tokens, channels, generator=generator), torch.full((1 + p % 2, 6), 0.5)))
        for p in range(count)
    ]


def rehearsed(patients: list[Prepared], stage: Stage = STAGE, declared: int = DECLARED, seed: int = 5) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed + 1)
    return train_round(brain(stage), stage, patients, declared, FREE, ReplayableNoise(seed), generator)


def private(patients: list[Prepared], stage: Stage = STAGE, sigma: float = 1.0) -> np.ndarray:
    event = SampledGaussian(stage.name, sigma, stage.sample_rate, stage.local_steps)
    return train_round(brain(stage), stage, patients, DECLARED, event, SecretNoise(), torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_rehearsal_repeats_bit_for_bit_and_a_release_never_does() -> None:
    stage = STAGE.model_copy(update={"local_steps": 2, "sample_rate": 0.5})
    assert np.array_equal(rehearsed(people(4), stage), rehearsed(people(4), stage))
    assert not np.array_equal(private(people(2)), private(people(2)))


def test_the_result_is_what_changed_in_the_stage_and_nothing_else_changes() -> None:
    model = brain()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    delta = train_round(model, STAGE, people(2), DECLARED, FREE, ReplayableNoise(0), torch.Generator().manual_seed(0))
    assert delta.dtype == np.float32
    assert delta.shape == (sum(p.numel() for p in trainable(model).values()),)
    assert np.abs(delta).max() > 0
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)


@pytest.mark.parametrize("pull", [0.5, 2.0])
def test_a_pull_towards_the_start_follows_its_closed_form_and_leaves_the_start_alone(
    pull: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one constant gradient g, steps lead to -(g / mu)(1 - (1 - rate mu)^steps)."""
    stage = STAGE.model_copy(update={"local_steps": 4, "momentum": 0.0, "proximal": pull})
    ones = {name: torch.ones_like(tensor) for name, tensor in trainable(brain(stage)).items()}
    monkeypatch.setattr(local_round, "_gradients", lambda *_: [ones] * stage.local_steps)
    expected = -(1 - (1 - stage.learning_rate * pull) ** stage.local_steps) / pull
    assert rehearsed(people(1), stage) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_first_step_is_the_same_with_and_without_a_pull() -> None:
    """There is nothing to pull back yet: what patients add, and its bound, is untouched."""
    one = STAGE.model_copy(update={"proximal": 3.0})
    assert np.array_equal(rehearsed(people(3), one), rehearsed(people(3)))


@pytest.mark.slow
def test_one_patient_moves_a_step_by_no_more_than_the_clip_over_the_declared_size() -> None:
    everyone = people(3, scale=30.0)
    bound = STAGE.learning_rate * STAGE.clip / (STAGE.sample_rate * DECLARED)
    whole, rest = rehearsed(everyone), rehearsed(everyone[:-1])
    assert np.linalg.norm(whole - rest) <= bound * (1 + 1e-4)
    assert np.linalg.norm(whole - rest) >= bound * 0.5, "these patients are far above the bound, so clipping must bind"


@pytest.mark.slow
def test_the_divisor_is_declared_never_counted() -> None:
    three = rehearsed(people(3))
    assert np.allclose(rehearsed(people(3), declared=2 * DECLARED), three / 2, rtol=1e-4, atol=1e-8)
    assert np.linalg.norm(rehearsed(people(6))) > 1.3 * np.linalg.norm(three), "six patients must not be averaged to one"


@pytest.mark.slow
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_patient_of_nan_changes_nothing_for_the_others(poison: float) -> None:
    healthy = people(2)
    tokens, channels = healthy[0].tensors[0].shape[1:]
    broken = Prepared((torch.full((1, tokens, channels), poison), torch.full((1, 6), 0.5)))
    # To rounding: the broken patient sends its pass to the loop, which sums in another order.
    assert np.allclose(rehearsed([*healthy, broken]), rehearsed(healthy), rtol=1e-5, atol=1e-9)


def test_a_site_nobody_was_drawn_at_sends_noise_of_the_promised_size() -> None:
    values = private([], sigma=2.0).astype(np.float64)
    expected = STAGE.learning_rate * 2.0 * STAGE.clip / (STAGE.sample_rate * DECLARED)
    assert abs(values.std() / expected - 1) < 5 / math.sqrt(2 * values.size)


def test_momentum_starts_at_zero_in_every_round() -> None:
    stage = STAGE.model_copy(update={"local_steps": 3})
    event = SampledGaussian(stage.name, 1.0, 1.0, 3)
    values = np.concatenate([
        train_round(brain(stage), stage, [], DECLARED, event, SecretNoise(), torch.Generator()) for _ in range(3)
    ]).astype(np.float64)  # fmt: skip
    # Three steps of momentum m add each draw 1, 1 + m and 1 + m + m^2 times.
    gain = math.sqrt(sum(sum(0.9**k for k in range(n)) ** 2 for n in (1, 2, 3)))
    expected = gain * stage.learning_rate * stage.clip / DECLARED
    assert abs(values.std() / expected - 1) < 5 / math.sqrt(2 * values.size)


@pytest.mark.parametrize(
    "event",
    [SampledGaussian("generator", 1.0, 1.0, 2), SampledGaussian("generator", 1.0, 0.5, 1),
     SampledGaussian("decoder", 1.0, 1.0, 1), NonPrivate("decoder")],
)  # fmt: skip
def test_nothing_is_trained_but_what_was_paid_for(event: SampledGaussian | NonPrivate) -> None:
    with pytest.raises(MechanismRefused, match="reserve this round first"):
        train_round(brain(), STAGE, people(1), DECLARED, event, SecretNoise(), torch.Generator())


def test_replayable_noise_never_makes_a_release() -> None:
    event = SampledGaussian("generator", 1.0, 1.0, 1)
    with pytest.raises(MechanismRefused, match="state what happened"):
        train_round(brain(), STAGE, people(1), DECLARED, event, ReplayableNoise(0), torch.Generator())
