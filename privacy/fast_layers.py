"""Per-patient parameter gradients of the layers that the `fast` engine knows, and why it refuses the others.

A rule gets a layer, its input x (P, K, ...) and the gradient g (P, K, ...) of its output, P patients with K rows each, and
returns (P, *shape) gradients by parameter; what `run` told beside the output comes after g. A leaf of one's own states the same
in a method `patient_gradients(x, g)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from privacy.convolution import uneven, weight_gradient
from privacy.errors import MechanismRefused

Rule = Callable[..., Mapping[str, Tensor]]                 # (layer, names of what is trained, x, grad)
_CACHE_BYTES = 16 << 20                                      # what stays near the processor from one pass to the next
_FLOPS_PER_BYTE = 1, 6                                       # float64 arithmetic against traffic, in and out of that cache


@runtime_checkable
class OwnRule(Protocol):
    """A leaf that states the gradients of its own parameters."""

    def patient_gradients(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """(P, K, ...) input and output gradient -> (P, *shape) by parameter name."""
        ...


@runtime_checkable
class OwnNorms(Protocol):
    """A leaf that knows the norms of its parameters' gradients without making them."""

    def patient_squares(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """(P, K, ...) input and output gradient -> (P,) squared norms, for every parameter by name."""
        ...


def rule_of(name: str, module: nn.Module) -> Rule:
    """The rule of a module that holds trainable parameters. Raises MechanismRefused, saying why there is none."""
    if why := _unknown_option(module):
        raise MechanismRefused(f"{name}: {why}; change the layer or use engine=loop")
    if type(module) in _RULES:
        return _RULES[type(module)]
    if next(module.children(), None) is not None:
        raise MechanismRefused(f"{name} holds parameters beside its children; put them in a leaf module, or use engine=loop")
    if isinstance(module, OwnRule):
        return _own
    raise MechanismRefused(
        f"{name}: no per-patient gradient is known for {type(module).__name__}; "
        "give it a method patient_gradients, or use engine=loop"
    )


def run(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The layer's (R, ...) output, and behind it what its forward knows and its rule would work out again."""
    if type(module) is nn.LayerNorm and x.dtype == module.weight.dtype:
        return torch.native_layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)
    return (type(module).forward(module, x),)


def refuse_mixing(name: str, module: nn.Module) -> None:
    """Refuse a layer whose output for one patient depends on the others in the batch, trainable or not."""
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        raise MechanismRefused(
            f"{name}: {type(module).__name__} normalises with all patients of the batch, so none can be clipped alone; "
            "use GroupNorm or LayerNorm"
        )


def refuse_shape(name: str, module: nn.Module, x: Tensor, rows: int) -> None:
    """Refuse an input that does not have the rows of the batch as its leading size."""
    match module:
        case _ConvNd():
            fits = x.dim() == len(module.stride) + 2
        case nn.LayerNorm():
            fits = x.dim() > len(module.normalized_shape)
        case nn.Linear() | nn.GroupNorm():
            fits = x.dim() >= 2
        case _:
            fits = x.dim() >= 1
    if not (fits and x.shape[0] == rows):
        raise MechanismRefused(
            f"{name}: its input {tuple(x.shape)} does not begin with the batch's {rows} rows, so gradients cannot be told "
            "apart by patient; keep rows first, or use engine=loop"
        )


def without_gradient(module: nn.Module, x: Tensor, patients: int, rows: int) -> bool:
    """Whether the norms of a layer's weight gradients should be had without the gradients: a ghost in place of the weight.

    For one patient with M = rows x tokens and a (p, d) Linear, inner products cost 2 M^2 (d + p) operations; keeping the
    gradient costs 12 d p bytes of memory traffic: written, read for the norm, read for the sum. The exchange rate between the
    two depends on whether all patients' gradients fit the cache. A leaf that states its norms is never kept. Other layers
    always are: their weights are small, or their inner products are dear. The choice changes the cost, not the result.
    """
    if type(module) is not nn.Linear:
        return type(module) not in _RULES and isinstance(module, OwnNorms)
    M, (p, d) = rows * x.numel() // (x.shape[0] * x.shape[-1]), module.weight.shape
    rate = _FLOPS_PER_BYTE[4 * patients * d * p > _CACHE_BYTES]
    return 2 * M * M * (d + p) < 12 * d * p * rate


def ghost_names(module: nn.Module) -> set[str]:
    """The parameters that a ghost stands for; a bias is small and kept."""
    return {"weight"} if type(module) is nn.Linear else {name for name, _ in module.named_parameters(recurse=False)}


def ghost_squares(module: nn.Module, x: Tensor, grad: Tensor) -> Mapping[str, Tensor]:
    """(P,) squared norms by parameter from (P, K, ...) input and output gradient.

    For a Linear: ||sum_m g_m x_m^T||^2 = sum_mn <g_m, g_n> <x_m, x_n> (Goodfellow, arXiv 1510.01799; Li et al., arXiv
    2110.05679). In float64: where tokens cancel, float32 terms leave a norm that is too small, and too small is too little
    clipping.
    """
    if isinstance(module, OwnNorms):
        return module.patient_squares(wide(x), wide(grad))
    a, b = _tokens(x.double()), _tokens(grad.double())       # (P, M, d), (P, M, p)
    return {"weight": ((a @ a.mT) * (b @ b.mT)).sum((1, 2)).clamp(min=0)}


def wide(x: Tensor) -> Tensor:
    """At least float32: norms made of halves would not be those of what is summed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _unknown_option(module: nn.Module) -> str | None:
    match module:
        case _ConvNd() if module.padding_mode != "zeros":
            return f"padding_mode={module.padding_mode!r} makes border voxels count more than once, which no rule here follows"
        case _ConvNd() if module.padding == "same" and uneven(module):
            return "padding='same' pads one side more under an even kernel, which no rule here follows"
        case nn.Embedding() if module.max_norm is not None:
            return "max_norm changes weights inside forward, outside any clipping"
        case nn.Embedding() if module.scale_grad_by_freq:
            return "scale_grad_by_freq weights one patient by the others in the batch"
        case nn.Embedding() if module.sparse:
            return "sparse gradients are not added up here"
    return None


def _own(module: OwnRule, names: Collection[str], x: Tensor, grad: Tensor) -> Mapping[str, Tensor]:
    return module.patient_gradients(x, grad)


def _linear(module: nn.Linear, names: Collection[str], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    a, b = _tokens(x.to(grad.dtype)), _tokens(grad)          # (P, M, d), (P, M, p)
    return _wanted(names, {"weight": lambda: b.mT @ a, "bias": lambda: b.sum(1)})


def _convolution(module: _ConvNd, names: Collection[str], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    weight, bias = partial(weight_gradient, module, x, grad), lambda: grad.flatten(3).sum((1, 3))
    return _wanted(names, {"weight": weight, "bias": bias})


def _layer_norm(module: nn.LayerNorm, names: Collection[str], x: Tensor, grad: Tensor, *told: Tensor) -> dict[str, Tensor]:
    shape, axes = module.normalized_shape, tuple(range(1, x.dim() - len(module.normalized_shape)))

    def weight() -> Tensor:
        if told:
            mean, scale = told
            scaled = torch.sub(x, mean).mul_(scale)          # half the time of a second layer_norm
        else:
            scaled = F.layer_norm(x.to(grad.dtype), shape, None, None, module.eps)
        return scaled.mul_(grad).sum(axes)

    return _wanted(names, {"weight": weight, "bias": lambda: grad.sum(axes)})


def _group_norm(module: nn.GroupNorm, names: Collection[str], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    axes = (1, *range(3, x.dim()))                           # rows and voxels, not patients and channels
    scaled = F.group_norm(x.to(grad.dtype).flatten(0, 1), module.num_groups, None, None, module.eps).view_as(x)
    return _wanted(names, {"weight": lambda: scaled.mul_(grad).sum(axes), "bias": lambda: grad.sum(axes)})


def _embedding(module: nn.Embedding, names: Collection[str], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    P, (V, D) = len(x), module.weight.shape
    row = x.flatten(1) + V * torch.arange(P, device=x.device)[:, None]                         # (P, M)
    result = grad.new_zeros(P * V, D).index_add_(0, row.flatten(), grad.reshape(-1, D)).view(P, V, D)
    if module.padding_idx is not None:
        result[:, module.padding_idx] = 0                    # as torch leaves it: padding is not learned
    return {"weight": result}


def _wanted(names: Collection[str], gradients: Mapping[str, Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Only what is trained is computed."""
    return {name: gradients[name]() for name in names}


def _tokens(x: Tensor) -> Tensor:
    """(P, K, ..., d) -> (P, K*..., d)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.ConvTranspose3d: _convolution,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
}
