"""The weight gradient of a convolution, patient by patient: as one grouped convolution, or as products of matrices.

Both are the same sum. A kernel of one voxel is a linear map of channels: one product a row. Larger kernels are products on a
CPU, where a volume is large against its kernel, as in the decoder's widest layer; they multiply some zeros between lines, and
small volumes would pay for their many small products. Everything else is a grouped convolution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

_LEAST_VOXELS = 1000                                         # of an output, for products to be worth their calls


@torch.no_grad()
def weight_gradient(module: _ConvNd, x: Tensor, grad: Tensor) -> Tensor:
    """(P, K, Cin, *S) input and (P, K, Cout, *T) output gradient -> (P, *weight): over the K rows of each patient.

    Halves are computed in float32, for the library adds some of them up as halves.
    """
    kind = torch.promote_types(grad.dtype, torch.float32)
    x, grad = x.to(kind), grad.to(kind)
    if pointwise(module):
        return _linear_map(module, x, grad)
    return (_products if sooner_as_products(module, grad) else _grouped)(module, x, grad)


def pointwise(module: _ConvNd) -> bool:
    """Whether the layer is one linear map of channels, voxel by voxel."""
    return max(module.kernel_size) == 1 and not any(padding(module)) and _plain(module)


def sooner_as_products(module: _ConvNd, grad: Tensor) -> bool:
    """Whether the (P, K, Cout, *T) output is on a CPU, large, and of a convolution without strides, groups and dilation.

    Measured: 32 channels on 12^3 take three quarters of a grouped convolution's time, 64 on 6^3 half as much again.
    """
    spread = max(module.kernel_size) > 1 and math.prod(grad.shape[3:]) >= _LEAST_VOXELS
    return _plain(module) and spread and grad.device.type == "cpu"


def _plain(module: _ConvNd) -> bool:
    ones = *module.stride, *module.dilation, module.groups
    return all(number == 1 for number in ones) and not module.transposed


def uneven(module: _ConvNd) -> bool:
    """Whether padding='same' pads one side of an axis more than the other."""
    return any(d * (k - 1) % 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))


def _linear_map(module: _ConvNd, x: Tensor, grad: Tensor) -> Tensor:
    total = grad.new_zeros(len(x), grad.shape[2], x.shape[2])
    for row in range(x.shape[1]):
        total.baddbmm_(grad[:, row].flatten(2), x[:, row].flatten(2).mT)
    return total.view(len(x), *module.weight.shape)


def _products(module: _ConvNd, x: Tensor, grad: Tensor) -> Tensor:
    """One volume at a time, so that its copies stay in the cache."""
    (*lead, last), P, Cin, Cout = module.kernel_size, len(x), x.shape[2], grad.shape[2]
    sums = grad.new_zeros(P, *lead, Cout, last * Cin)
    for patient, volumes, grads in zip(sums, x, grad, strict=True):
        for volume, one in zip(volumes, grads, strict=True):
            _add_products(module, patient.view(-1, Cout, last * Cin), volume, one)
    axes = len(lead)
    order = 0, axes + 1, axes + 3, *range(1, axes + 1), axes + 2                                # (P, Cout, Cin, *kernel)
    return torch.permute(sums.view(*sums.shape[:-1], last, Cin), order).contiguous()


def _add_products(module: _ConvNd, sums: Tensor, volume: Tensor, grad: Tensor) -> None:
    """(Cin, *S) and (Cout, *T) onto (shifts, Cout, last*Cin).

    A padded volume is one line of memory for each channel, and to shift it along any axis but the last is to begin further on:
    each such shift is a product of two matrices that lie there already. What a line has beyond the output meets zeros of the
    gradient. Along the last axis the volume is copied once for each shift.
    """
    *lead, last = module.kernel_size
    padded = F.pad(volume, _both_ends(padding(module)))
    width = grad.shape[-1]
    lines = torch.stack([padded[..., shift : shift + width] for shift in range(last)]).flatten(0, 1)
    sides = lines.shape[1:-1]
    beyond = [side - own for side, own in zip(sides[1:], grad.shape[2:-1], strict=True)]
    spread = F.pad(grad, [0, 0, *_ends(beyond)])
    steps = [math.prod(lines.shape[axis + 2 :]) for axis in range(len(lead))]
    length = sum((own - 1) * step for own, step in zip(grad.shape[1:-1], steps, strict=True)) + width
    left, right = spread.flatten(1)[:, :length], lines.flatten(1)
    for total, shift in zip(sums, itertools.product(*map(range, lead)), strict=True):
        start = sum(places * step for places, step in zip(shift, steps, strict=True))
        total.addmm_(left, right[:, start : start + length].T)


def _grouped(module: _ConvNd, x: Tensor, grad: Tensor) -> Tensor:
    """Patients side by side as groups of ONE convolution over K rows, whose weight gradient is then each patient's own."""
    P = len(x)
    shape = (P * module.weight.shape[0], *module.weight.shape[1:])
    result = torch.ops.aten.convolution_backward(
        _side_by_side(grad), _side_by_side(x), grad.new_empty(()).expand(shape), None, module.stride, padding(module),
        module.dilation, module.transposed, module.output_padding, P * module.groups, (False, True, False),
    )  # fmt: skip
    gradient: Tensor = result[1]
    return gradient.view(P, *module.weight.shape)


def _side_by_side(x: Tensor) -> Tensor:
    """(P, K, C, ...) -> (K, P*C, ...)."""
    return x.transpose(0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def padding(module: _ConvNd) -> tuple[int, ...]:
    """Zeros at either end of each axis."""
    match module.padding:
        case "valid":
            return (0,) * len(module.stride)
        case "same":
            return tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
        case sides:
            return tuple(int(side) for side in sides)


def _both_ends(sides: Sequence[int]) -> list[int]:
    """In the order of torch's pad: the last axis first."""
    return [side for own in reversed(sides) for side in (own, own)]


def _ends(sides: Sequence[int]) -> list[int]:
    """The same, at the far end alone."""
    return [side for own in reversed(sides) for side in (0, own)]
