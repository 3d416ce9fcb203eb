"""Structural similarity is MONAI's number, on one scale and on several, at any sides, and its gradient is MONAI's."""

from __future__ import annotations

import pytest
import torch
from monai.losses.ssim_loss import SSIMLoss
from monai.metrics.regression import MultiScaleSSIMMetric, SSIMMetric
from torch import Tensor

from braing3n_core.metrics.images import MS_SSIM_WEIGHTS
from braing3n_core.metrics.structure import DATA_RANGE, WINDOW, WINDOW_SIGMA, multiscale, similarity

SIDES = [(7, 9, 12), (28, 32, 36), (48, 40, 44)]


def pair(shape: tuple[int, int, int], noise: float) -> tuple[Tensor, Tensor]:
    """(2, D, H, W) smooth volumes, and the same with noise."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 1, *(max(2, side // 4) for side in shape), generator=draw)
    volumes = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[:, 0]
    return volumes, volumes + noise * torch.randn(2, *shape, generator=draw)


@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.5])
def test_one_scale_is_monais(shape: tuple[int, int, int], noise: float) -> None:
    a, b = pair(shape, noise)
    theirs = SSIMMetric(3, data_range=DATA_RANGE, win_size=WINDOW, kernel_sigma=WINDOW_SIGMA, reduction="none")
    torch.testing.assert_close(similarity(a, b)[0], theirs(a[:, None], b[:, None])[:, 0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SIDES[1:])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.5])
def test_several_scales_are_monais(shape: tuple[int, int, int], noise: float) -> None:
    a, b = pair(shape, noise)
    theirs = MultiScaleSSIMMetric(
        3, data_range=DATA_RANGE, kernel_size=WINDOW, kernel_sigma=WINDOW_SIGMA, weights=MS_SSIM_WEIGHTS, reduction="none"
    )
    torch.testing.assert_close(multiscale(a, b, MS_SSIM_WEIGHTS), theirs(a[:, None], b[:, None])[:, 0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SIDES[:2])
def test_its_gradient_is_that_of_monais_loss(shape: tuple[int, int, int]) -> None:
    a, b = pair(shape, 0.1)
    b.requires_grad_(True)
    (ours,) = torch.autograd.grad(similarity(a, b)[0].mean(), b)
    unlike = SSIMLoss(3, data_range=DATA_RANGE, win_size=WINDOW, kernel_sigma=WINDOW_SIGMA)
    (theirs,) = torch.autograd.grad(1 - unlike(b[:, None], a[:, None]), b)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_what_is_worse_than_unlike_counts_as_zero() -> None:
    a, _ = pair((28, 32, 36), 0.0)
    assert multiscale(a, 1 - a, MS_SSIM_WEIGHTS).tolist() == [0.0, 0.0]
