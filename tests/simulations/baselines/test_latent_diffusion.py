"""MONAI's networks on grids of ours: shapes, what is random, and whether what is asked for reaches them."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.models.population import MISSING
from braing3n_core.plan import DEFAULT_VARIABLES
from simulations.baselines.latent_diffusion import LATENT_CHANNELS, LatentDiffusion

SHAPE = (16, 32, 48)


def model() -> LatentDiffusion:
    torch.manual_seed(0)
    return LatentDiffusion(SHAPE, DEFAULT_VARIABLES).eval()


def codes(value: float) -> torch.Tensor:
    return torch.full((1, len(DEFAULT_VARIABLES)), value)


def test_people_have_the_grid_and_repeat_by_seed() -> None:
    networks = model()
    one, again, other = (networks.sample(codes(0.0), 2, seed) for seed in (1, 1, 2))
    assert one.shape == (1, 1, *SHAPE)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_latent_has_a_quarter_of_each_side_and_comes_back() -> None:
    networks = model()
    latents = networks.encode(torch.rand(2, 1, *SHAPE))
    assert latents.shape == (2, LATENT_CHANNELS, 4, 8, 12)
    assert networks.decode(latents).shape == (2, 1, *SHAPE)


def test_what_is_asked_for_and_what_is_not_known_reach_the_network() -> None:
    networks = model()
    with torch.no_grad():                                    # MONAI's last layer begins at zero
        for parameter in networks.unet.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    zero, half, hidden = (networks.sample(codes(value), 2, 1) for value in (0.0, 0.5, MISSING))
    assert not torch.allclose(zero, half)
    assert not torch.allclose(zero, hidden), "a number that is not known is not a zero"


@pytest.mark.slow
def test_a_step_on_the_same_draws_has_the_same_loss_and_reaches_every_weight() -> None:
    networks = model()
    volumes = torch.rand(1, 1, *SHAPE)

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    loss = networks.autoencoder_loss(volumes, draw())
    assert loss == networks.autoencoder_loss(volumes, draw())
    torch.autograd.backward(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks.autoencoder.parameters())
    latents = torch.randn(2, LATENT_CHANNELS, 4, 8, 12)
    noise = networks.diffusion_loss(latents, codes(0.0).expand(2, -1), draw())
    assert float(noise.detach()) == pytest.approx(1.0, abs=0.1), "its last layer begins at zero"


@pytest.mark.parametrize("shape", [(16, 24, 20), (48, 48, 40)])
def test_sides_that_cannot_be_halved_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="multiple of 16"):
        LatentDiffusion(shape, DEFAULT_VARIABLES)
