"""The `fast` engine: one forward and one backward over all rows of all patients, and each patient's gradient out of it.

Every leaf with trainable parameters runs with its parameters detached, so that autograd never makes the batch's weight
gradient; a tap on its output sees the output's gradient and makes the patients' in its place. The work is that of plain
training plus memory traffic of 12 bytes for every parameter and patient.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from privacy.errors import MechanismRefused
from privacy.fast_layers import (
    Rule,
    ghost_names,
    ghost_squares,
    refuse_mixing,
    refuse_shape,
    rule_of,
    run,
    wide,
    without_gradient,
)  # fmt: skip
from privacy.gradients import PatientGradients, RowLoss, Rows, loop, one_loss_a_row, together

_LARGEST_NORM = 1e30                                         # beyond it float32 squares and factors lose digits
ROWS_AT_ONCE = 32


def fast(
    model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, rows_at_once: int = ROWS_AT_ONCE
) -> Iterator[PatientGradients]:
    """Gradients of `patients`, as many in one pass as have `rows_at_once` rows together (one at least).

    Guarantee: the same as `loop` to float32 rounding, however patients are cut into passes, for a model whose rows do not
    look at each other. A model this engine does not know is refused with the reason. Parameters used by several leaves or
    several times are added up before their norm is taken. A pass in which a norm is not finite is left to `loop`.
    """
    leaves = _leaves(model)
    parameters = {name: leaf.module.get_parameter(own) for leaf in leaves for own, name in leaf.names.items()}
    for part in _passes(patients, rows_at_once):
        record = _Record([len(rows[0]) for rows in part], list(parameters))
        with _watched(leaves, record):
            _backward(model, parameters, record, together(part), row_loss)
        if record.usable():
            yield record
        else:
            yield from loop(model, part, row_loss)
        del record                                           # its gradients, before the next pass makes as many


@dataclass(frozen=True)
class _Leaf:
    """A module with trainable parameters of its own; `names` maps its names of them to the model's."""

    path: str
    module: nn.Module
    names: Mapping[str, str]
    rule: Rule


_Use = tuple[_Leaf, Tensor, Tensor]                          # a leaf, its (R, ...) input, its output's (R, ...) gradient


class _Record:
    """What one backward told of each patient: gradients that were kept, or what their norm and sum can be made of."""

    def __init__(self, sizes: Sequence[int], names: Sequence[str]) -> None:
        self.sizes, self._names = list(sizes), names
        self._even = len(set(sizes)) == 1
        self._kept: dict[str, Tensor] = {}                   # (P, *shape)
        self._ghosts: dict[str, list[tuple[str, _Use]]] = {} # by the model's name, with the leaf's
        self._squares: dict[str, Tensor] = {}                # (P,) float64

    def take(self, leaf: _Leaf, grad: Tensor, x: Tensor, *told: Tensor) -> None:
        """One use of a leaf: the (R, ...) gradient of its output, its input, and what `fast_layers.run` told beside."""
        use = leaf, x.detach(), grad
        ghosts = ghost_names(leaf.module) if without_gradient(leaf.module, x, len(self.sizes), max(self.sizes)) else set()
        for own in ghosts & leaf.names.keys():
            self._ghosts.setdefault(leaf.names[own], []).append((own, use))
        self._keep(use, leaf.names.keys() - ghosts, *told)

    def settle(self) -> None:
        """After the backward: take the norms. A weight used more than once is kept, for a ghost would miss cross terms."""
        for name, uses in list(self._ghosts.items()):
            if len(uses) > 1 or name in self._kept:
                for own, use in self._ghosts.pop(name):
                    self._keep(use, {own})
        nothing = torch.zeros(len(self.sizes), dtype=torch.float64)
        self._squares = dict.fromkeys(self._names, nothing)
        if self._kept:
            squares = torch.stack([_norms(gradient).cpu() for gradient in self._kept.values()]).square()
            self._squares |= dict(zip(self._kept, squares, strict=True))
        self._squares |= {name: self._ghost_squares(*ghost).cpu() for name, (ghost,) in self._ghosts.items()}

    def usable(self) -> bool:
        """Whether every norm is finite and within what float32 factors can scale."""
        return bool((torch.stack(list(self._squares.values())).sum(0) < _LARGEST_NORM**2).all())

    def squares(self) -> dict[str, Tensor]:
        """(P,) by name; zero for a tensor that no row reached."""
        return self._squares

    def add_to(self, total: Mapping[str, Tensor], factors: Tensor) -> None:
        """Add the sum over patients of factor times gradient."""
        for name, gradient in self._kept.items():
            total[name].view(-1).addmv_(gradient.flatten(1).T, factors.to(gradient))
        by_row = factors.repeat_interleave(torch.tensor(self.sizes))
        for name, ((own, (leaf, x, grad)),) in self._ghosts.items():
            scaled = wide(grad) * by_row.to(total[name]).view(-1, *[1] * (grad.dim() - 1))
            # Scaled rows of one imaginary patient: its gradient is the sum over all.
            total[name].add_(leaf.rule(leaf.module, {own}, wide(x)[None], scaled[None])[own][0])

    def _keep(self, use: _Use, names: Collection[str], *told: Tensor) -> None:
        leaf, x, grad = use
        if not names:
            return
        split = zip(*map(self._split, (x, grad, *told)), strict=True)
        parts = [leaf.rule(leaf.module, names, *part) for part in split]
        for own in names:
            gradient = parts[0][own] if len(parts) == 1 else torch.cat([part[own] for part in parts])
            gradient, name = gradient.to(leaf.module.get_parameter(own).dtype), leaf.names[own]
            self._kept[name] = self._kept[name] + gradient if name in self._kept else gradient

    def _ghost_squares(self, own: str, use: _Use) -> Tensor:
        leaf, x, grad = use
        pairs = zip(self._split(x), self._split(grad), strict=True)
        return torch.cat([ghost_squares(leaf.module, a, g)[own].double() for a, g in pairs])

    def _split(self, x: Tensor) -> list[Tensor]:
        """(R, ...) -> [(P, K, ...)], or [(1, K, ...)] for each patient where K differs."""
        if self._even:
            return [x.view(len(self.sizes), self.sizes[0], *x.shape[1:])]
        return [part[None] for part in x.split(self.sizes)]


class _Context(Protocol):
    """What torch passes between forward and backward."""

    record: _Record
    leaf: _Leaf
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Tap(torch.autograd.Function):
    """The identity on a leaf's output; its backward tells the record. A parameter goes in so that the graph reaches it."""

    @staticmethod
    def forward(
        ctx: _Context, out: Tensor, seen: tuple[Tensor, ...], record: _Record, leaf: _Leaf, parameter: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*seen)
        ctx.record, ctx.leaf = record, leaf
        return out.detach()                                  # not `out`: a view of an input cannot be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        ctx.record.take(ctx.leaf, grad, *ctx.saved_tensors)
        return grad, None, None, None, None


def _leaves(model: nn.Module) -> list[_Leaf]:
    """The leaves in the model's order, found in one walk. Refuses what cannot be watched or has no rule."""
    names: dict[int, str] = {}                               # a parameter that is shared keeps its first name
    found = []
    for path, module in model.named_modules():
        refuse_mixing(path, module)
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            raise MechanismRefused(f"{path or 'the model'} is compiled, so its layers cannot be watched; use engine=loop")
        trained = [(name, p) for name, p in module._parameters.items() if p is not None and p.requires_grad]
        if trained:
            if "forward" in vars(module):
                raise MechanismRefused(f"{path}: its forward was replaced, so its rule may not be its own; use engine=loop")
            own = {name: names.setdefault(id(p), f"{path}.{name}" if path else name) for name, p in trained}
            found.append(_Leaf(path or "the model", module, own, rule_of(path or "the model", module)))
    return found


@contextmanager
def _watched(leaves: Sequence[_Leaf], record: _Record) -> Iterator[None]:
    """Taps on the outputs of all leaves, gone again afterwards."""
    for leaf in leaves:
        leaf.module.forward = partial(_tapped, leaf, record)
    try:
        yield
    finally:
        for leaf in leaves:
            del leaf.module.forward


def _tapped(leaf: _Leaf, record: _Record, *inputs: Tensor, **named: Tensor) -> Tensor:
    if len(inputs) != 1 or named:
        raise MechanismRefused(f"{leaf.path} takes more than one tensor, and its gradient is known for one; use engine=loop")
    (x,) = inputs
    refuse_shape(leaf.path, leaf.module, x, sum(record.sizes))
    own: dict[str, Any] = leaf.module._parameters
    held = {name: own[name] for name in leaf.names}
    own.update({name: parameter.detach() for name, parameter in held.items()})
    try:
        out, *told = run(leaf.module, x)
    finally:
        own.update(held)                                     # before anything else can look at them
    tapped: Tensor = _Tap.apply(out, (x, *told), record, leaf, next(iter(held.values())))
    return tapped


def _backward(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], record: _Record, rows: Rows, row_loss: RowLoss
) -> None:
    sizes = record.sizes
    with _no_random_draws(rows[0].device), _as_written():
        losses = one_loss_a_row(row_loss(model, rows), sum(sizes))
    if losses.requires_grad:
        share = losses.new_tensor([1 / size for size in sizes for _ in range(size)])           # a patient's loss is a mean
        found: Sequence[Tensor | None] = torch.autograd.grad(
            (losses * share).sum(), list(parameters.values()), allow_unused=True
        )
        outside = [name for name, gradient in zip(parameters, found, strict=True) if gradient is not None]
        if outside:
            raise MechanismRefused(f"{outside[0]} is used outside its own layer, where no rule sees it; use engine=loop")
    record.settle()


@contextmanager
def _as_written() -> Iterator[None]:
    """Compiled functions run uncompiled: a graph made before the taps were set, or for another record, passes them by."""
    if "torch._dynamo" not in sys.modules:                   # a second of importing, and nothing can be compiled without it
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _no_random_draws(device: torch.device) -> Iterator[None]:
    """Refuse a forward that draws random numbers: two engines, or two passes, would not see one function."""
    state = torch.cuda.get_rng_state if device.type == "cuda" else torch.get_rng_state
    before = state()
    yield
    if not torch.equal(before, state()):
        raise MechanismRefused("the model draws random numbers in forward; switch dropout off and make draws part of the rows")


def _passes(patients: Sequence[Rows], rows_at_once: int) -> Iterator[list[Rows]]:
    part: list[Rows] = []
    for rows in patients:
        if part and sum(len(other[0]) for other in part) + len(rows[0]) > rows_at_once:
            yield part
            part = []
        part.append(rows)
    if part:
        yield part


def _norms(gradient: Tensor) -> Tensor:
    """(P, *shape) -> (P,) float64: float32 over one row of a weight at a time, float64 over rows."""
    by_row = torch.linalg.vector_norm(gradient.flatten(2), dim=2) if gradient.dim() > 2 else gradient.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(by_row, dim=1, dtype=torch.float64)
    return norms
