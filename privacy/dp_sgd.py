"""Patient-level DP-SGD: Poisson sampling of patients, one clipped gradient per patient, noise on the sum.

A patient is a tuple of tensors whose leading size K is the patient's number of rows (scans, visits, noise draws); the
patient's loss is the mean of its row losses, so more rows change neither the weight nor the sensitivity of a patient.
Random draws (masks, times, noise) are made outside the model's forward, so every engine sees the same function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.mechanism import Bounded, add_noise, clip
from privacy.opacus_bridge import row_gradients
from privacy.randomness import Randomness

Rows = tuple[Tensor, ...]                                    # each (K, ...), K rows of one patient
RowLoss = Callable[[nn.Module, Rows], Tensor]                # -> (K,)
Engine = Literal["loop", "opacus"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class ClippedSum:
    """A sum over patients, each clipped to `total.l2_bound`, and their norms before clipping (never leave the site)."""

    total: Bounded
    norms: Tensor                                            # (P,)


@dataclass(frozen=True)
class PoissonSampler(Generic[Key]):
    """Each patient joins each step independently with probability `rate`; an empty step is an ordinary step."""

    rate: float
    randomness: Randomness

    def draw(self, patients: Sequence[Key]) -> list[Key]:
        """The patients of one step, possibly none. The coins are as secret as the noise."""
        if not 0 < self.rate <= 1:
            raise MechanismRefused(f"sample rate {self.rate} must be in (0, 1]")
        coins = self.randomness.uniform(len(patients)) < self.rate
        return [patient for patient, joins in zip(patients, coins.tolist(), strict=True) if joins]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may change, by name. Frozen ones enter neither the norm nor the sum."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def clipped_sum(
    model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, engine: Engine = "loop"
) -> ClippedSum:
    """Sum over `patients` of each one's gradient, clipped to `l2_bound` in joint L2 norm over all trainable tensors.

    Guarantee: adding or removing one patient, with all of that patient's rows, moves the sum by at most `l2_bound`. No
    patients give zeros. A patient with a non-finite gradient contributes zeros. Engines agree to float32 rounding:
    `loop` is one ordinary backward per patient and takes any model; `opacus` sums Opacus' per-row gradients by patient
    and is the independent witness.
    """
    parameters = trainable(model)
    if not parameters:
        raise MechanismRefused("the model has no trainable tensor; unfreeze what the stage trains")
    gradients = _loop if engine == "loop" else _witness
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    norms: list[float] = []
    bounded = clip(total, l2_bound)                          # refuses a bound that is none, even without patients
    for gradient in gradients(model, patients, row_loss) if patients else ():
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradient.values())))
        for name, tensor in clip(gradient, l2_bound).tensors.items():
            total[name] += tensor
    return ClippedSum(Bounded(total, bounded.l2_bound), torch.tensor(norms, dtype=torch.float64))


def private_gradient(
    model: nn.Module,
    patients: Sequence[Rows],
    row_loss: RowLoss,
    l2_bound: float,
    event: SampledGaussian,
    expected_patients: float,
    randomness: Randomness,
) -> dict[str, Tensor]:
    """One DP-SGD step's gradient: the noisy clipped sum over a PUBLIC divisor.

    `patients` must come from a PoissonSampler of rate `event.sample_rate`. `expected_patients` is sample rate times the
    DECLARED cohort size, never a count of the data: a divisor that depends on the data leaks membership
    (Opacus issues 571 and 819). Guarantee: one of `event.steps` steps of `event`.
    """
    if not (expected_patients > 0 and math.isfinite(expected_patients)):
        raise MechanismRefused(f"expected patients per step {expected_patients} must be a finite positive number")
    if event.replayable != randomness.replayable:
        raise MechanismRefused("the event says the noise is secret and it is not, or the reverse; state what happened")
    total = clipped_sum(model, patients, row_loss, l2_bound).total
    noisy = add_noise(total, event.noise_multiplier, randomness)
    return {name: tensor / expected_patients for name, tensor in noisy.items()}


def _loop(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss) -> list[dict[str, Tensor]]:
    parameters = trainable(model)
    names, tensors = list(parameters), list(parameters.values())
    gradients = []
    for rows in patients:
        values = torch.autograd.grad(row_loss(model, rows).mean(), tensors, materialize_grads=True)
        gradients.append(dict(zip(names, values, strict=True)))
    return gradients


def _witness(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss) -> list[dict[str, Tensor]]:
    sizes = [len(rows[0]) for rows in patients]
    batch = tuple(torch.cat(column) for column in zip(*patients, strict=True))
    per_row = row_gradients(model, lambda wrapped: row_loss(wrapped, batch).sum())
    split = {name: gradient.split(sizes) for name, gradient in per_row.items()}
    return [{name: parts[p].mean(0) for name, parts in split.items()} for p in range(len(patients))]
