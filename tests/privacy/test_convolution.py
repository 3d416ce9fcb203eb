"""Law: whichever way it is made, a patient's weight gradient is what autograd makes of that patient alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from privacy import convolution
from privacy.convolution import pointwise, sooner_as_products, weight_gradient

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
    torch.testing.assert_close(convolution._products(module, x, grad).detach(), expected)
    torch.testing.assert_close(convolution._grouped(module, x, grad), expected)
    torch.testing.assert_close(weight_gradient(module, x, grad), expected)


def test_large_volumes_are_products_and_all_else_is_grouped() -> None:
    large, small = torch.zeros(2, 1, 4, 12, 12, 12), torch.zeros(2, 1, 4, 6, 6, 6)
    plain = nn.Conv3d(4, 4, 3, padding=1)
    assert sooner_as_products(plain, large)
    assert not sooner_as_products(plain, small)
    assert not sooner_as_products(plain, large.to("meta"))
    for other in (nn.Conv3d(4, 4, 1), nn.Conv3d(4, 4, 3, stride=2), nn.Conv3d(4, 4, 3, groups=2), nn.ConvTranspose3d(4, 4, 3)):
        assert not sooner_as_products(other, large)


@pytest.mark.parametrize(
    "module",
    [nn.Conv1d(3, 2, 1), nn.Conv3d(3, 2, 1), nn.Conv2d(3, 2, 1, padding="same"), nn.Conv2d(3, 2, 1, padding="valid")],
)
def test_a_kernel_of_one_voxel_is_a_linear_map(module: _ConvNd) -> None:
    assert pointwise(module)
    module, x = module.double(), torch.randn(3, 2, 3, *range(2, 2 + len(module.stride)), dtype=torch.float64)
    grad = output_gradient(module, x)
    expected = torch.stack([alone(module, rows, own) for rows, own in zip(x, grad, strict=True)])
    torch.testing.assert_close(weight_gradient(module, x, grad), expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, (1, 2)), nn.Conv2d(4, 4, 1, padding=1), nn.Conv2d(4, 4, 1, stride=(1, 2)),
        nn.Conv2d(4, 4, 1, groups=2), nn.ConvTranspose2d(4, 4, 1),
    ],
)  # fmt: skip
def test_no_other_is(module: _ConvNd) -> None:
    assert not pointwise(module)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_large_volume_has_the_gradient_of_autograd(padding: int) -> None:
    module = nn.Conv3d(2, 3, (3, 1, 2), padding=padding).double()
    x = torch.randn(2, 2, 2, 13, 12, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grad = output_gradient(module, x)
    assert sooner_as_products(module, grad)
    expected = torch.stack([alone(module, rows, own) for rows, own in zip(x, grad, strict=True)])
    torch.testing.assert_close(weight_gradient(module, x.requires_grad_(), grad), expected)


def test_a_patient_does_not_see_the_others() -> None:
    module = nn.Conv3d(2, 3, 3, padding=1)
    x = torch.randn(4, 2, 2, 10, 11, 12, generator=torch.Generator().manual_seed(0))
    grad = output_gradient(module, x)
    together = weight_gradient(module, x, grad)
    x[1:], grad[1:] = torch.nan, torch.inf
    assert torch.equal(weight_gradient(module, x, grad)[0], together[0])


@pytest.mark.parametrize(("kernel", "voxels"), [(1, 900), (3, 900), (3, 1024)], ids=["linear", "grouped", "products"])
def test_halves_are_added_up_in_float32(kernel: int, voxels: int) -> None:
    """Voxels of one, each a 256th: added up in bfloat16 they would stop at one."""
    module = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False).bfloat16()
    x = torch.ones(1, 1, 1, voxels, dtype=torch.bfloat16)
    found = weight_gradient(module, x, torch.full_like(x, 2.0**-8))
    assert found.dtype == torch.float32
    assert float(found[0, 0, 0, kernel // 2]) == voxels / 256
