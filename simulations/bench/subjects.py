"""The three networks that are trained, on a grid whose every cube is a token, with patients of random numbers.

Times and memory depend on shapes alone, so the data are noise: P patients with K rows each, 216 tokens at the tiny preset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from braing3n_core.models.brain import Brain
from braing3n_core.models.decoder import Decoder
from braing3n_core.models.generator import Generator
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.models.tokenizer import Encoder, MaskedDecoder
from braing3n_core.models.trainable import NETWORKS
from braing3n_core.plan import DEFAULT_VARIABLES
from braing3n_core.training import draw_rows, row_loss
from privacy.dp_sgd import RowLoss, Rows

Benched = Literal["generator", "decoder", "encoder"]          # the trajectory is a generator of fewer blocks
STAGES: Final[tuple[Benched, ...]] = get_args(Benched)


@dataclass(frozen=True)
class Subject:
    """One network with all its weights trainable, and the rows of one step."""

    stage: Benched
    model: nn.Module
    patients: Sequence[Rows]
    loss: RowLoss
    name: str                                                # for a person

    @property
    def batch(self) -> Rows:
        """All rows, for a step that knows no patients."""
        return tuple(torch.cat(column) for column in zip(*self.patients, strict=True))


def subject(stage: Benched, patients: int, views: int, preset: Preset = PRESETS["tiny"]) -> Subject:
    """The network of `stage` with every weight random, and `views` rows of each of `patients` patients."""
    torch.manual_seed(0)
    model = _filled(preset)
    with torch.no_grad():
        for parameter in (*model.parameters(), model.generator.population.basis):
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.requires_grad_(False)
    for network in NETWORKS[stage]:
        model.get_submodule(network).requires_grad_(True)
    draws = torch.Generator().manual_seed(1)
    rows = [draw_rows(stage, _scan(stage, preset, draws), model, views, draws) for _ in range(patients)]
    return Subject(stage, model, rows, row_loss(stage), _name(stage, preset))


def _name(stage: Benched, preset: Preset) -> str:
    match stage:
        case "generator":
            return f"DiT generator, {preset.tokens} tokens"
        case "decoder":
            return f"decoder, {' x '.join(map(str, preset.shape))} voxels"
        case "encoder":
            return f"MAE, {round(preset.tokens * (1 - preset.mask_ratio))} of {preset.tokens} tokens visible"


def _filled(preset: Preset) -> Brain:
    """A brain that fills its box: no cube is left out for being outside the template's."""
    model, everywhere = Brain(preset, DEFAULT_VARIABLES), torch.arange(preset.tokens)
    model.encoder, model.masked = Encoder(preset, everywhere), MaskedDecoder(preset, everywhere)
    tissue = torch.full((3, *preset.shape), 1 / 3)
    model.decoder = Decoder(preset, everywhere, torch.ones(preset.shape, dtype=torch.bool), tissue)
    model.generator = Generator(preset, everywhere, DEFAULT_VARIABLES)
    model.centre = torch.zeros(preset.tokens, preset.latent_width)
    return model


def _scan(stage: Benched, preset: Preset, draws: torch.Generator) -> tuple[Tensor, ...]:
    """What the stage keeps of one patient with one scan."""
    tokens = preset.tokens
    match stage:
        case "encoder":
            return (torch.randn(1, tokens, preset.patch_voxels, generator=draws),)
        case "decoder":
            volume = torch.rand(1, 1, *preset.shape, generator=draws)
            return torch.randn(1, tokens, preset.encoder_width, generator=draws), volume
        case "generator":
            latents = torch.randn(1, tokens, preset.latent_width, generator=draws)
            return latents, torch.full((1, len(DEFAULT_VARIABLES)), 0.5)
