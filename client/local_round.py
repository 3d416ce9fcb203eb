"""One round on one site's patients: some steps of DP-SGD, or one step's numbers for a secure sum."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage
from braing3n_core.state import flatten
from braing3n_core.training import Prepared, make_rows, row_loss
from privacy.dp_sgd import PoissonSampler, Rows, clipped_each, clipped_sum, refuse_disagreement, trainable
from privacy.errors import MechanismRefused
from privacy.events import NonPrivate, SampledGaussian
from privacy.randomness import Randomness, SecretNoise
from privacy.secure_sum import Noisy, Terms, noisy_sum
from privacy.steps import DpSgd, private_steps

Charged = SampledGaussian | NonPrivate
_ENGINE: Final = "fast"


def train_round(
    model: Brain,
    stage: Stage,
    patients: Sequence[Prepared],
    declared: int,
    event: Charged,
    randomness: Randomness,
    generator: torch.Generator,
) -> np.ndarray:
    """Take `stage.local_steps` steps from the model's present tensors; return what they changed, float32 (n,).

    Guarantee: with a SampledGaussian, the result is what that event, and nothing more, pays for: every step draws its
    patients by Poisson sampling, clips each one's gradient over all scans, adds noise, and divides by the DECLARED cohort
    size. Momentum starts at zero, so nothing of an earlier round is in it. `randomness` draws patients and noise;
    `generator` draws masks, times and views, on which the guarantee does not rest. With NonPrivate there is no noise and no
    guarantee. A plan's `proximal` pull (FedProx: Li et al., MLSys 2020) is computed from the round's start and from steps
    whose noise is paid for, so it is post-processing and costs nothing.

    Before the first step the fast engine is compared with the loop on two patients of this very model; if they differ,
    nothing is trained.
    """
    _refuse_another_event(stage, event)
    _compare_engines(model, stage, patients[:2])
    before = flatten(trainable(model))
    start = {name: tensor.detach().clone() for name, tensor in trainable(model).items()} if stage.proximal else {}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in trainable(model).items()}
    for gradient in _gradients(model, stage, patients, declared, event, randomness, generator):
        _step(model, stage, gradient, velocity, start)
    changed: np.ndarray = flatten(trainable(model)) - before
    return changed


def noisy_numbers(model: Brain, stage: Stage, patients: Sequence[Prepared], terms: Terms) -> Noisy:
    """One step for a secure sum: whole numbers of the sampled patients' gradients, with this site's share of the noise.

    Guarantee: added up over the sites, what `terms.event` at the stage's sample rate pays for; by itself, terms.local_event.
    Every patient joins by Poisson sampling, is clipped over all scans, and rounded alone. Nothing in it can be replayed.
    """
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7)))
    drawn = PoissonSampler[Prepared](stage.sample_rate, SecretNoise()).draw(patients)
    rows = (make_rows(patient, stage, model, generator) for patient in drawn)
    return noisy_sum(clipped_each(model, rows, row_loss(stage.name, stage.learns), stage.clip), terms)


def _compare_engines(model: Brain, stage: Stage, patients: Sequence[Prepared]) -> None:
    """On draws of its own, so that the round's are the same with and without it."""
    draws = torch.Generator().manual_seed(0)
    rows = [make_rows(patient, stage, model, draws) for patient in patients]
    refuse_disagreement(model, rows, row_loss(stage.name, stage.learns), _ENGINE)


def _gradients(
    model: Brain,
    stage: Stage,
    patients: Sequence[Prepared],
    declared: int,
    event: Charged,
    randomness: Randomness,
    generator: torch.Generator,
) -> Iterator[dict[str, Tensor]]:
    """One for each step, of the model as it then is."""

    def rows_of(patient: Prepared) -> Rows:
        return make_rows(patient, stage, model, generator)

    loss = row_loss(stage.name, stage.learns)
    match event:
        case SampledGaussian():
            yield from private_steps(DpSgd(_ENGINE, randomness), event, model, patients, rows_of, loss, stage.clip, declared)
        case NonPrivate():
            sampler = PoissonSampler[Prepared](stage.sample_rate, randomness)
            for _ in range(stage.local_steps):
                rows = [rows_of(patient) for patient in sampler.draw(patients)]
                total = clipped_sum(model, rows, loss, stage.clip, _ENGINE).total
                yield {name: tensor / (stage.sample_rate * declared) for name, tensor in total.tensors.items()}


def _step(
    model: Brain, stage: Stage, gradient: dict[str, Tensor], velocity: dict[str, Tensor], start: dict[str, Tensor]
) -> None:
    """SGD with momentum and a pull towards `start`, if it is given; post-processing of the noisy gradients."""
    with torch.no_grad():
        for name, tensor in trainable(model).items():
            velocity[name].mul_(stage.momentum).add_(gradient[name])
            if start:
                velocity[name].add_(tensor - start[name], alpha=stage.proximal)
            tensor.sub_(stage.learning_rate * velocity[name])


def _refuse_another_event(stage: Stage, event: Charged) -> None:
    """What was paid for is what is done."""
    same = event.stage == stage.name
    if isinstance(event, SampledGaussian):
        same = same and (event.sample_rate, event.steps) == (stage.sample_rate, stage.local_steps)
    if not same:
        raise MechanismRefused(f"the charge was not made for a round of stage {stage.name}; reserve this round first")
