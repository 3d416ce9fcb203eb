"""The steps that one event pays for. Rate, noise and number of steps are read off the event, and there is no second place.

Training and audit both go through here, so what is accounted is what happens, and what is attacked is what is trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from torch import Tensor, nn

from privacy.dp_sgd import Engine, PoissonSampler, RowLoss, Rows, clipped_sum, private_gradient
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.mechanism import Tensors
from privacy.randomness import Randomness, SecretNoise

Key = TypeVar("Key")


class Step(Protocol):
    """What one step does to patients, cut where the self-test looks. `DpSgd` is the real one."""

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        """The patients of one step."""

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        """The sum of their clipped gradients, without noise."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        """What leaves: the noisy sum."""


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


def private_steps(
    step: Step,
    event: SampledGaussian,
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
