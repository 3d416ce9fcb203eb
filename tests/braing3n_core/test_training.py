"""Rows draw what they should and nothing else; cached latents are means."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.data.cohort import Scan
from braing3n_core.models.generator import MISSING
from braing3n_core.training import DROP_ALL, DROP_ONE, LATENT_NOISE, draw_rows, make_rows, prepare, row_loss
from tests.small import SMALL, small_brain, stage

MODEL = small_brain()


def scans(count: int) -> list[Scan]:
    draw = torch.Generator().manual_seed(4)
    ages = [{"age": 20.0 + i, "sex": "F"} for i in range(count)]
    return [Scan(torch.rand(1, *SMALL.shape, generator=draw), conditions) for conditions in ages]


def test_cached_latents_are_means_and_never_noisy() -> None:
    one, two = (prepare("generator", MODEL, scans(2)).tensors for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one[0], MODEL.encode(torch.stack([s.volume for s in scans(2)])))


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_rows_follow_from_the_generator_alone_and_every_row_has_a_loss(name: str) -> None:
    chosen = stage(name, views=5)
    prepared = prepare(chosen.name, MODEL, scans(2))
    one, two = (make_rows(prepared, chosen, MODEL, torch.Generator().manual_seed(9)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    losses = row_loss(chosen.name)(MODEL, one)
    assert losses.shape == (5,)
    assert torch.isfinite(losses).all()
    assert len(set(losses.tolist())) == 5, "every row has draws of its own"


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_a_rows_loss_does_not_depend_on_its_neighbours(name: str) -> None:
    chosen = stage(name, views=3)
    rows = make_rows(prepare(chosen.name, MODEL, scans(3)), chosen, MODEL, torch.Generator().manual_seed(1))
    together = row_loss(chosen.name)(MODEL, rows)
    alone = torch.cat([row_loss(chosen.name)(MODEL, tuple(r[i : i + 1] for r in rows)) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-4)


def test_conditions_are_hidden_as_often_as_declared() -> None:
    latents, codes = torch.zeros(1, MODEL.tokens, SMALL.latent_width), torch.full((1, 6), 0.5)
    dropped = draw_rows("generator", (latents, codes), MODEL, 4000, torch.Generator().manual_seed(0))[3] == MISSING
    expected = DROP_ALL + (1 - DROP_ALL) * DROP_ONE
    assert abs(float(dropped.float().mean()) - expected) < 0.02
    assert abs(float(dropped.all(1).float().mean()) - DROP_ALL) < 0.02


def test_decoder_noise_stays_below_its_declared_deviation() -> None:
    data = (torch.zeros(1, MODEL.tokens, SMALL.encoder_width), torch.zeros(1, 1, *SMALL.shape))
    noise = draw_rows("decoder", data, MODEL, 400, torch.Generator().manual_seed(0))[2]
    deviations = noise.flatten(1).std(1)
    assert deviations.max() < 1.3 * LATENT_NOISE
    assert deviations.min() < 0.1 * LATENT_NOISE
