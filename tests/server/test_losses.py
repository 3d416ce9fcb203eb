"""What public training may lose besides squared error: what counts, how it grows, and that a recipe without it is as before."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import PlanRefused
from braing3n_core.prior import SHIPPED, read_prior
from braing3n_core.training import draw_rows, row_loss
from server.losses import spectral_loss, structural_loss
from server.prior import DecoderPhase, EncoderPhase, _decoder_loss, _encoder_loss
from tests.small import SMALL, small_brain

PATCH = (6, 8, 10)                                           # unequal, and each long enough for a wave below the finest


def wave(amplitude: float, axis: int, cycles: int) -> torch.Tensor:
    """(V,) one cosine along an axis of a cube."""
    line = amplitude * torch.cos(2 * math.pi * cycles * torch.arange(PATCH[axis]) / PATCH[axis])
    return line.view([-1 if place == axis else 1 for place in range(3)]).expand(PATCH).reshape(-1)


def lost_by(cube: torch.Tensor) -> float:
    """The loss of two hidden cubes that are off by this."""
    predicted = torch.zeros(1, 3, len(cube))
    predicted[:, 1:] = cube
    return float(spectral_loss(predicted, torch.zeros(1, 3, len(cube)), torch.tensor([[0]]), PATCH))


@given(amplitude=st.floats(1e-3, 10), axis=st.integers(0, 2), cycles=st.integers(1, 2))
def test_a_wave_counts_by_its_amplitude_however_fine_it_is_along_any_axis(amplitude: float, axis: int, cycles: int) -> None:
    assert lost_by(wave(amplitude, axis, cycles)) == pytest.approx(amplitude * lost_by(wave(1.0, 0, 1)), rel=1e-3)


def test_only_hidden_cubes_count() -> None:
    cubes, keep = torch.zeros(2, 5, math.prod(PATCH)), torch.tensor([[0, 3], [1, 2]])
    predicted = torch.zeros_like(cubes).scatter(1, keep[..., None].expand(-1, -1, cubes.shape[2]), 1.0)
    assert float(spectral_loss(predicted, cubes, keep, PATCH)) == 0


@pytest.mark.parametrize("shape", [(27, 32, 32), (32, 24, 32), (32, 32, 16)])
def test_a_grid_too_small_for_three_scales_is_refused(shape: tuple[int, int, int]) -> None:
    volumes = torch.rand(1, 1, *shape)
    with pytest.raises(PlanRefused, match="too small for windows of 7"):
        structural_loss(volumes, volumes, torch.ones(shape), 0.5)


def test_structure_is_missed_where_brightness_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    volumes = torch.rand(2, 1, 28, 32, 36, generator=draw)
    brain = torch.ones(28, 32, 36)
    assert float(structural_loss(volumes, volumes, brain, 1.0)) == pytest.approx(0, abs=1e-6)
    flat = volumes.mean().expand_as(volumes)
    brighter = volumes + (flat - volumes).abs().mean()       # as far away, but with all of the structure
    absolute = [float(structural_loss(made, volumes, brain, 0.0)) for made in (flat, brighter)]
    assert absolute[0] == pytest.approx(absolute[1], rel=1e-4)
    assert structural_loss(flat, volumes, brain, 1.0) > structural_loss(brighter, volumes, brain, 1.0) + 0.3


def test_without_its_weight_a_phase_has_the_loss_of_its_stage_and_with_it_another() -> None:
    model = small_brain()
    volumes, draw = torch.rand(3, 1, *SMALL.shape), torch.Generator().manual_seed(1)
    cubes = model.cubes(volumes)
    rows = draw_rows("encoder", (cubes,), model, 4, draw)
    phase = {"steps": 1, "batch": 4, "learning_rate": 1e-3}
    plain, spectral = (_encoder_loss(EncoderPhase(**phase, frequency=weight)) for weight in (0.0, 0.5))
    assert torch.equal(plain(model, rows), row_loss("encoder")(model, rows).mean())
    predicted = model.masked(model.encoder(*rows), rows[1])
    beside = 0.5 * spectral_loss(predicted, *rows, SMALL.patch)
    assert float((spectral(model, rows) - plain(model, rows)).detach()) == pytest.approx(float(beside.detach()), rel=1e-4)
    shown = draw_rows("decoder", (model.encoder(cubes), volumes), model, 4, draw)
    squared = _decoder_loss(DecoderPhase(**phase))
    assert torch.equal(squared(model, shown), row_loss("decoder")(model, shown).mean())


@pytest.mark.slow
def test_a_decoder_can_be_trained_for_structure() -> None:
    model = read_prior(SHIPPED / "tiny.safetensors")
    model.decoder.leave.weight.requires_grad_(True)
    volumes = torch.rand(2, 1, *model.preset.shape, generator=torch.Generator().manual_seed(0)) * model.decoder.brain
    rows = draw_rows("decoder", (model.encoder(model.cubes(volumes)), volumes), model, 2, torch.Generator().manual_seed(1))
    made = model.decode(model.latents(rows[0]) + rows[2])
    loss = _decoder_loss(DecoderPhase(steps=1, batch=2, learning_rate=1e-3, structural=0.5))(model, rows)
    assert torch.equal(loss, structural_loss(made, rows[1], model.decoder.brain, 0.5))
    torch.autograd.backward(loss)
    assert model.decoder.leave.weight.grad is not None
    assert model.decoder.leave.weight.grad.norm() > 0
