"""Patient-level DP-SGD: Poisson sampling of patients, one clipped gradient per patient, noise on the sum.

A patient is a tuple of tensors whose leading size K is the patient's number of rows (scans, visits, noise draws); the
patient's loss is the mean of its row losses, so more rows change neither the weight nor the sensitivity of a patient.
Random draws (masks, times, noise) are made outside the model's forward, so every engine sees the same function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.fast_engine import fast
from privacy.gradients import PatientGradients, RowLoss, Rows, loop, trainable, witness
from privacy.mechanism import Bounded, Tensors, add_noise, clip, clip_factors
from privacy.randomness import Randomness

__all__ = [
    "ClippedSum", "Engine", "PoissonSampler", "RowLoss", "Rows", "clipped_each", "clipped_sum", "private_gradient",
    "refuse_disagreement", "trainable",
]  # fmt: skip
Engine = Literal["loop", "fast", "opacus"]
Key = TypeVar("Key")
_ENGINES: dict[Engine, Callable[[nn.Module, Sequence[Rows], RowLoss], Iterator[PatientGradients]]] = {
    "loop": loop,
    "fast": fast,
    "opacus": witness,
}


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


def clipped_sum(
    model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, engine: Engine = "loop"
) -> ClippedSum:
    """Sum over `patients` of each one's gradient, clipped to `l2_bound` in joint L2 norm over all trainable tensors.

    Guarantee: adding or removing one patient, with all of that patient's rows, moves the sum by at most `l2_bound`, up to
    float32 rounding (a part in a million). No patients give zeros. A patient with a non-finite gradient contributes zeros.
    A forward that changes a buffer is refused: it would carry one patient into the gradients of the next.

    Engines agree to float32 rounding. `loop` is one ordinary backward per patient and takes any model; `fast` is one
    backward for all at the price of plain training, for the layers it knows; `opacus` sums Opacus' per-row gradients by
    patient and is the independent witness.
    """
    parameters = trainable(model)
    if not parameters:
        raise MechanismRefused("the model has no trainable tensor; unfreeze what the stage trains")
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    norms = [torch.zeros(0, dtype=torch.float64)]
    clip_factors(norms[0], l2_bound)                         # refuses a bound that is none, even without patients
    with _buffers_unchanged(model):
        for gradients in _ENGINES[engine](model, patients, row_loss) if patients else ():
            norms.append(torch.stack(list(gradients.squares().values())).sum(0).sqrt().cpu())
            gradients.add_to(total, clip_factors(norms[-1], l2_bound))
            del gradients                                    # or one pass is held while the next is worked on
    return ClippedSum(Bounded({name: tensor.detach() for name, tensor in total.items()}, l2_bound), torch.cat(norms))


def clipped_each(model: nn.Module, patients: Iterable[Rows], row_loss: RowLoss, l2_bound: float) -> Iterator[Bounded]:
    """Every patient's gradient by itself, clipped to `l2_bound` in joint L2 norm over all trainable tensors, in name order.

    Guarantee: each is finite and within its bound (privacy.mechanism.clip), whatever the other patients are. One at a time, by
    the reference engine: a secure sum rounds every patient before it adds up, so it cannot take a sum.
    """
    names = sorted(trainable(model))
    for rows in patients:
        with _buffers_unchanged(model):
            (gradient,) = loop(model, [rows], row_loss)
        yield clip({name: gradient.tensors[name] for name in names}, l2_bound)


def refuse_disagreement(
    model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, engine: Engine = "fast", tolerance: float = 1e-4
) -> None:
    """Compare `engine` with `loop`, tensor by tensor, on a few patients of the model that will be trained.

    Guarantee: returns only if every trainable tensor's part of every patient's norm, and its part of the sum, are equal to
    `tolerance`, and to a hundredth of that of the whole for tensors that hardly count. A tensor that is left out of the norm,
    summed twice or not split by patient is found whatever its size. Only equal or not equal is said.
    """
    finite = [rows for rows, one in zip(patients, loop(model, patients, row_loss), strict=True) if one.norm() < math.inf]
    if not finite:
        return
    (norms, sums), (true_norms, true_sums) = (_told(model, finite, row_loss, name) for name in (engine, "loop"))
    slack = tolerance / 100 * torch.stack(list(true_norms.values())).square().sum(0).sqrt()    # (P,)
    for name, norm in true_norms.items():
        apart = (sums[name].double() - true_sums[name].double()).norm()
        same = (norms[name] - norm).abs() <= tolerance * norm + slack
        if not (same.all() and apart <= tolerance * true_sums[name].double().norm() + slack.sum() * len(finite)):
            raise MechanismRefused(f"engine={engine} and engine=loop differ in {name} on this model; run with engine=loop")


def private_gradient(
    model: nn.Module,
    patients: Sequence[Rows],
    row_loss: RowLoss,
    l2_bound: float,
    event: SampledGaussian,
    expected_patients: float,
    randomness: Randomness,
    engine: Engine = "loop",
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
    total = clipped_sum(model, patients, row_loss, l2_bound, engine).total
    noisy = add_noise(total, event.noise_multiplier, randomness)
    torch._foreach_div_(list(noisy.values()), expected_patients)
    return noisy


def _told(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, engine: Engine) -> tuple[Tensors, Tensors]:
    """(P,) norms by tensor, and sums in which the first patient counts once, the second twice and so on."""
    total = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
    norms: dict[str, list[Tensor]] = {name: [] for name in total}
    weight = 1
    for gradients in _ENGINES[engine](model, patients, row_loss):
        for name, square in gradients.squares().items():
            norms[name].append(square.sqrt().cpu())
        count = len(norms[next(iter(norms))][-1])
        gradients.add_to(total, torch.arange(weight, weight + count, dtype=torch.float64))
        weight += count
    return {name: torch.cat(parts) for name, parts in norms.items()}, total


@contextmanager
def _buffers_unchanged(model: nn.Module) -> Iterator[None]:
    before = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}
    yield
    for name, buffer in model.named_buffers():
        known, version = before.get(name, (None, 0))
        if buffer is not known or buffer._version != version:
            raise MechanismRefused(f"forward changed the buffer {name}: what it learned is not private; freeze or remove it")
