"""What clipping needs of the gradients of several patients, and two plain ways to get it: `loop` and `opacus`.

A patient is a tuple of tensors whose leading size K is the patient's number of rows; the patient's loss is the mean of its row
losses. An engine need not write a gradient down: it must know its squared norm and be able to add it, scaled, to a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from privacy.errors import MechanismRefused
from privacy.opacus_bridge import row_gradients

Rows = tuple[Tensor, ...]                                    # each (K, ...), K rows of one patient
RowLoss = Callable[[nn.Module, Rows], Tensor]                # -> (K,)


class PatientGradients(Protocol):
    """The gradients of P patients over every trainable tensor."""

    def squares(self) -> dict[str, Tensor]:
        """(P,) float64 squared L2 norm of each patient's gradient, for every trainable tensor by name."""
        ...

    def add_to(self, total: Mapping[str, Tensor], factors: Tensor) -> None:
        """Add to `total` the sum over patients of factor times gradient; `factors` is (P,) float64."""
        ...


@dataclass(frozen=True)
class OneGradient:
    """One patient's gradient, written down. Norm and product in float64: the reference the other engines are held to."""

    tensors: Mapping[str, Tensor]

    def norm(self) -> float:
        """Joint L2 norm over all tensors."""
        return math.sqrt(sum(float(square) for square in self.squares().values()))

    def squares(self) -> dict[str, Tensor]:
        """(1,) by name."""
        return {name: tensor.double().square().sum()[None] for name, tensor in self.tensors.items()}

    def add_to(self, total: Mapping[str, Tensor], factors: Tensor) -> None:
        """A factor of 0 adds nothing, even of a gradient that is not finite."""
        if float(factors) != 0:
            for name, tensor in self.tensors.items():
                # In double: a float32 gradient of 1e38 needs a factor that float32 holds only as a denormal.
                total[name].add_((tensor.double() * factors).to(tensor.dtype))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may change, by name. Frozen ones enter neither the norm nor the sum."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def loop(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss) -> Iterator[OneGradient]:
    """One ordinary backward per patient. Takes any model, and is right because it does nothing clever."""
    parameters = trainable(model)
    names, tensors = list(parameters), list(parameters.values())
    for rows in patients:
        losses = one_loss_a_row(row_loss(model, rows), len(rows[0]))
        values = torch.autograd.grad(losses.mean(), tensors, materialize_grads=True)
        yield OneGradient(dict(zip(names, values, strict=True)))


def witness(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss) -> Iterator[OneGradient]:
    """Opacus' per-row gradients, averaged over each patient's rows before any norm is taken."""
    sizes = [len(rows[0]) for rows in patients]
    batch = together(patients)
    per_row = row_gradients(model, lambda wrapped: one_loss_a_row(row_loss(wrapped, batch), sum(sizes)).sum())
    split = {name: gradient.split(sizes) for name, gradient in per_row.items()}
    for p in range(len(patients)):
        yield OneGradient({name: parts[p].mean(0) for name, parts in split.items()})


def together(patients: Sequence[Rows]) -> Rows:
    """All rows of all patients, patient after patient."""
    return tuple(torch.cat(column) for column in zip(*patients, strict=True))


def one_loss_a_row(losses: Tensor, rows: int) -> Tensor:
    """The losses, if there is one for each row. A loss of shape (rows, 1) has silently multiplied gradients elsewhere."""
    if losses.shape != (rows,):
        raise MechanismRefused(f"the row loss has shape {tuple(losses.shape)} for {rows} rows; return one number for each row")
    return losses
