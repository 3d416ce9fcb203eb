"""MONAI's networks on grids of ours: shapes, what is random, and whether what is asked for reaches them."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.models.population import MISSING
from braing3n_core.plan import DEFAULT_VARIABLES
from simulations.baselines.latent_diffusion import LATENT_CHANNELS, LatentDiffusion, _schedule

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
    networks = noisy(model())
    zero, half, hidden = (networks.sample(codes(value), 2, 1) for value in (0.0, 0.5, MISSING))
    assert not torch.allclose(zero, half)
    assert not torch.allclose(zero, hidden), "a number that is not known is not a zero"


def noisy(networks: LatentDiffusion) -> LatentDiffusion:
    """No weight at zero, where MONAI begins several layers."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return networks


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.slow
def test_a_step_on_the_same_draws_has_the_same_loss_and_reaches_every_weight() -> None:
    networks = noisy(model())
    volumes, latents = torch.rand(1, 1, *SHAPE), torch.randn(2, LATENT_CHANNELS, 4, 8, 12)
    asked = codes(0.5).expand(2, -1)
    rebuilt, denoised = networks.autoencoder_loss(volumes, draw()), networks.diffusion_loss(latents, asked, draw())
    assert rebuilt == networks.autoencoder_loss(volumes, draw())
    torch.autograd.backward(rebuilt + denoised)
    for name, parameter in networks.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A key's bias moves all of a softmax alike, and one token of context leaves its query and key nothing to choose.
        assert parameter.grad.norm() > 0 or ".to_k" in name or ".to_q" in name or ".norm2" in name, name


def test_latents_are_seen_at_a_variance_of_one() -> None:
    networks, latents = noisy(model()), torch.randn(2, LATENT_CHANNELS, 4, 8, 12)
    with torch.no_grad():
        once, wrong = (networks.diffusion_loss(k * latents, codes(0.5).expand(2, -1), draw()) for k in (1.0, 50.0))
        networks.scale.fill_(50.0)
        again = networks.diffusion_loss(50.0 * latents, codes(0.5).expand(2, -1), draw())
    assert float(again) == pytest.approx(float(once), rel=1e-4)
    assert float(wrong) != pytest.approx(float(once), rel=1e-2)


@pytest.mark.parametrize(("steps", "error"), [(5, 0.23), (25, 0.1), (100, 0.04)])
def test_steps_lead_from_each_time_to_the_next(monkeypatch: pytest.MonkeyPatch, steps: int, error: float) -> None:
    """Latents are normal with mean 1 and deviation 0.3, and the network knows it; wrong times move the mean."""
    networks = model()
    networks.scale.fill_(2.0)

    def knows(z: torch.Tensor, times: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        kept = _schedule().alphas_cumprod[times[0]]
        return (1 - kept).sqrt() * (z - kept.sqrt()) / (kept * 0.3**2 + 1 - kept)

    monkeypatch.setattr(networks, "_noise_in", knows)
    monkeypatch.setattr(networks, "decode", lambda latents: latents)
    people = networks.sample(codes(0.0).expand(8, -1), steps, seed=1) / 2
    assert float(people.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(people.std()) == pytest.approx(0.3, abs=error)


@pytest.mark.parametrize("shape", [(16, 24, 20), (48, 48, 40)])
def test_sides_that_cannot_be_halved_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="multiple of 16"):
        LatentDiffusion(shape, DEFAULT_VARIABLES)
