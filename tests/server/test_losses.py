"""What public training may lose besides squared error: what counts, how it grows, and that a recipe without it is as before."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.training import draw_rows, row_loss
from server.losses import spectral_loss, structural_loss
from server.prior import DecoderPhase, EncoderPhase, _decoder_loss, _encoder_loss
from tests.small import SMALL, small_brain

PATCH = SMALL.patch
VOXELS = SMALL.patch_voxels


def wave(amplitude: float, cycles: int) -> torch.Tensor:
    """(V,) one cosine along the second axis of a cube."""
    p, q, r = PATCH
    line = amplitude * torch.cos(2 * math.pi * cycles * torch.arange(q) / q)
    return line[None, :, None].expand(p, q, r).reshape(-1)


@given(amplitude=st.floats(1e-3, 10), cycles=st.integers(1, PATCH[1] // 2 - 1))
def test_a_wave_counts_by_its_amplitude_however_fine_it_is(amplitude: float, cycles: int) -> None:
    cubes, keep = torch.zeros(1, 3, VOXELS), torch.tensor([[0]])
    predicted = torch.zeros(1, 3, VOXELS)
    predicted[:, 1:] = wave(amplitude, cycles)
    unit = torch.zeros(1, 3, VOXELS)
    unit[:, 1:] = wave(1.0, 1)
    assert float(spectral_loss(predicted, cubes, keep, PATCH)) == pytest.approx(
        amplitude * float(spectral_loss(unit, cubes, keep, PATCH)), rel=1e-3
    )


def test_only_hidden_cubes_count() -> None:
    cubes, keep = torch.zeros(2, 5, VOXELS), torch.tensor([[0, 3], [1, 2]])
    predicted = torch.zeros(2, 5, VOXELS).scatter(1, keep[..., None].expand(-1, -1, VOXELS), 1.0)
    assert float(spectral_loss(predicted, cubes, keep, PATCH)) == 0


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


def test_without_their_weight_phases_have_the_loss_of_their_stage_and_with_it_another() -> None:
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
