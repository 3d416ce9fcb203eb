"""The steps that one event pays for. Rate, noise and number of steps are read off the event, and there is no second place.

Training and audit both go through here, so what is accounted is what happens, and what is attacked is what is trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from privacy.dp_sgd import Engine, PoissonSampler, RowLoss, Rows, clipped_each, clipped_sum, private_gradient, trainable
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian, SecureSummed
from privacy.mechanism import Tensors
from privacy.randomness import Randomness, SecretNoise
from privacy.secure_sum import Terms, noisy_sum

Key = TypeVar("Key")
Sampled = TypeVar("Sampled", SampledGaussian, SecureSummed)
Paid = TypeVar("Paid", contravariant=True)                   # the event that a step is one of


class Step(Protocol[Paid]):
    """What one step does to patients, cut where the self-test looks. `DpSgd` and `SumOverSites` are the real ones."""

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        """The patients of one step."""

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        """The sum of their clipped gradients, without noise."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: Paid
    ) -> Tensors:
        """What leaves: the noisy sum."""


GaussianStep = Step[SampledGaussian]


class DpSgd:
    """The step that training takes: privacy/dp_sgd.py, by the engine that rounds use, with noise from the operating system."""

    def __init__(self, engine: Engine = "fast", randomness: Randomness | None = None) -> None:
        self.engine, self._randomness = engine, SecretNoise() if randomness is None else randomness

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        """A Poisson sample."""
        return PoissonSampler[Key](rate, self._randomness).draw(patients)

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        """As dp_sgd.clipped_sum."""
        return clipped_sum(model, patients, row_loss, l2_bound, self.engine).total.tensors

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        """As dp_sgd.private_gradient, divided by 1."""
        return private_gradient(model, patients, row_loss, l2_bound, event, 1.0, self._randomness, self.engine)


class SumOverSites:
    """The step that sites of a secure sum take together, in one place: what the server learns of them, and no masks.

    Patients are dealt to as many honest sites as the event has shares of noise, and each site's sum is `secure_sum.noisy_sum`.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale                                  # whole numbers per 1

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        """A Poisson sample."""
        return PoissonSampler[Key](rate, SecretNoise()).draw(patients)

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        """Every patient's gradient clipped by itself, added up, not yet rounded."""
        each = [one.tensors for one in clipped_each(model, patients, row_loss, l2_bound)]
        nothing = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
        return {name: torch.stack([zero, *(one[name] for one in each)]).sum(0) for name, zero in nothing.items()}

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SecureSummed
    ) -> Tensors:
        """The sum over sites of clipped and rounded gradients with noise, back in the gradients' unit."""
        shapes = {name: parameter.shape for name, parameter in sorted(trainable(model).items())}
        terms = Terms(
            sites=tuple(f"site {place}" for place in range(event.shares)), context="in one place",
            size=sum(shape.numel() for shape in shapes.values()), l2_bound=l2_bound, scale=self._scale,
            noise_variance=event.noise_variance, most_patients=max(1, len(patients)), dropped=0, colluding=0,
        )  # fmt: skip
        if not (terms.whole_l2_bound <= event.l2_bound and terms.size == event.size):
            raise MechanismRefused("the event is of a sum of other numbers than these; state what happens")
        dealt = [patients[place :: event.shares] for place in range(event.shares)]
        sums = [noisy_sum(clipped_each(model, own, row_loss, l2_bound), terms).values for own in dealt]
        flat = torch.from_numpy(np.sum(sums, axis=0) / self._scale).float()
        parts = flat.split([shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def private_steps(
    step: Step[Sampled],
    event: Sampled,
    model: nn.Module,
    patients: Sequence[Key],
    rows_of: Callable[[Key], Rows],
    row_loss: RowLoss,
    l2_bound: float,
    declared: int,
) -> Iterator[dict[str, Tensor]]:
    """The noisy gradients of `event`, one after the other; the caller changes the model in between.

    Guarantee: all of them together cost `event` and no more, for a correct `step`: every step draws each patient at the event's
    rate and adds the event's noise, and after the event's number of steps there is none. The divisor is the event's rate times
    the DECLARED cohort size, which is public. `rows_of` makes the rows of a patient who was drawn.
    """
    if not declared >= 1:
        raise MechanismRefused(f"a declared cohort of {declared} patients is none; declare at least one")
    for _ in range(event.steps):
        rows = [rows_of(patient) for patient in step.draw(patients, event.sample_rate)]
        total = step.private_gradient(model, rows, row_loss, l2_bound, event)
        yield {name: tensor / (event.sample_rate * declared) for name, tensor in total.items()}
