"""Law: whichever way it is made, a patient's weight gradient is what autograd makes of that patient alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from privacy import convolution
from privacy.convolution import weight_gradient

_KINDS: dict[int, type[_ConvNd]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def cases(draw: st.DrawFn) -> tuple[_ConvNd, Tensor]:
    """A convolution of one to three axes with unequal sides, kernels and paddings, and (P, K, C, ...) input."""
    axes = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    padding = [draw(st.integers(0, 3)) for _ in range(axes)]
    sides = [draw(st.integers(max(1, k - 2 * p), 6)) for k, p in zip(kernel, padding, strict=True)]
    channels_in, channels_out = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    module = _KINDS[axes](channels_in, channels_out, kernel, padding=padding)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    x = torch.randn(draw(st.integers(1, 4)), draw(st.integers(1, 3)), channels_in, *sides, generator=generator)
    return module.double(), x.double()


def alone(module: _ConvNd, rows: Tensor, grad: Tensor) -> Tensor:
    """One patient's weight gradient by an ordinary backward."""
    (found,) = torch.autograd.grad(module(rows), [module.weight], grad)
    return found


def output_gradient(module: _ConvNd, x: Tensor) -> Tensor:
    out = module(x.flatten(0, 1)).detach()
    return torch.cos(torch.arange(out.numel(), dtype=x.dtype)).view(*x.shape[:2], *out.shape[1:])


@given(cases())
def test_products_of_matrices_are_the_gradients_of_the_convolution(case: tuple[_ConvNd, Tensor]) -> None:
    module, x = case
    grad = output_gradient(module, x)
    expected = torch.stack([alone(module, rows, own) for rows, own in zip(x, grad, strict=True)])
    torch.testing.assert_close(weight_gradient(module, x, grad), expected)
    torch.testing.assert_close(convolution._grouped(module, x, grad), expected)


def test_a_patient_does_not_see_the_others() -> None:
    module = nn.Conv3d(2, 3, 3, padding=1)
    x = torch.randn(4, 2, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    grad = output_gradient(module, x)
    together = weight_gradient(module, x, grad)
    x[1:], grad[1:] = torch.nan, torch.inf
    assert torch.equal(weight_gradient(module, x, grad)[0], together[0])


def test_halves_are_added_up_in_float32() -> None:
    """A thousand rows of one, each a 256th: added up in bfloat16 they would stop at one half."""
    module = nn.Conv1d(1, 1, 1, bias=False).bfloat16()
    x = torch.ones(1, 1024, 1, 1, dtype=torch.bfloat16)
    found = weight_gradient(module, x, torch.full_like(x, 2.0**-8))
    assert float(found) == 4.0
