"""What each stage learns from a patient: the rows drawn from cached tensors, and the loss of each row.

Every random draw (scan, mask, time, noise, dropped condition) is made here, outside the networks, so that any gradient
engine sees one fixed function of the rows. B rows, N tokens, C channels, V voxels of a cube, M conditioning variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from braing3n_core.flow import between, time_shift
from braing3n_core.models.brain import Brain
from braing3n_core.models.population import MISSING
from braing3n_core.models.tokenizer import mask_tokens, masked_loss
from braing3n_core.plan import Learns, Stage, StageName
from privacy.dp_sgd import RowLoss, Rows

if TYPE_CHECKING:
    from braing3n_core.data.cohort import Scan

LATENT_NOISE = 0.25                                          # largest deviation added to latents for the decoder (RAE)
DROP_ONE = 0.15                                              # chance that one condition is hidden
DROP_ALL = 0.1                                               # chance that all are


@dataclass(frozen=True)
class Prepared:
    """What a stage keeps of one patient: tensors whose leading size is the number of scans. Nothing in it is random."""

    tensors: Rows


def prepare(stage: StageName, model: Brain, scans: Sequence[Scan]) -> Prepared:
    """The frozen part of the stage's work on one patient's scans, done once.

    encoder: (S, N, V) cubes. decoder: (S, N, E) encoder tokens and (S, 1, D, H, W) volumes. generator: (S, N, C) MEAN
    latents, never noisy ones, and (S, M) condition codes.
    """
    volumes = torch.stack([scan.volume for scan in scans])
    with torch.no_grad():
        match stage:
            case "encoder":
                return Prepared((model.cubes(volumes),))
            case "decoder":
                return Prepared((model.encoder(model.cubes(volumes)), volumes))
            case "generator":
                return Prepared((model.encode(volumes), model.codes([scan.conditions for scan in scans])))


def make_rows(prepared: Prepared, stage: Stage, model: Brain, generator: torch.Generator) -> Rows:
    """K = `stage.views` rows of one patient, each a random scan with fresh draws."""
    return draw_rows(stage.name, prepared.tensors, model, stage.views, generator, stage.learns)


def draw_rows(
    stage: StageName, tensors: Rows, model: Brain, count: int, generator: torch.Generator, learns: Learns = "flow"
) -> Rows:
    """`count` rows drawn with replacement from tensors with a common leading size.

    A generator that learns the mean is asked at pure noise alone. There the best velocity is noise minus the mean of everybody
    with these conditions, so a patient's gradient says how far the patient lies from that mean and holds nothing of the noise.
    """
    chosen = torch.randint(len(tensors[0]), (count,), generator=generator)
    rows = tuple(tensor[chosen] for tensor in tensors)
    match stage:
        case "encoder":
            return (*rows, mask_tokens(count, model.tokens, model.preset.mask_ratio, generator))
        case "decoder":
            deviation = LATENT_NOISE * torch.rand(count, 1, 1, generator=generator)
            return (*rows, deviation * torch.randn(count, *model.centre.shape, generator=generator))
        case "generator":
            latents, codes = rows
            noise = torch.randn(latents.shape, generator=generator)
            times = time_shift(torch.rand(count, generator=generator), latents[0].numel())
            times = torch.ones_like(times) if learns == "mean" else times
            return latents, noise, times, hidden(codes, generator)


def row_loss(stage: StageName) -> RowLoss:
    """The stage's loss of each row, (B,)."""
    return {"encoder": _encoder_loss, "decoder": _decoder_loss, "generator": _generator_loss}[stage]


def _encoder_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error of the hidden cubes (He et al., arXiv 2111.06377)."""
    brain, (cubes, keep) = cast(Brain, model), rows
    return masked_loss(brain.encoder, brain.masked, cubes, keep)


def _decoder_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error inside the brain, in units of 0.01, from latents with noise on them (RAE, arXiv 2510.11690)."""
    brain, (tokens, volumes, noise) = cast(Brain, model), rows
    latents = (brain.projection(tokens) - brain.centre) / brain.scale
    error: Tensor = (brain.decode(latents + noise) - volumes).square() * brain.decoder.brain
    voxels: Tensor = brain.decoder.brain.sum()
    return error.flatten(1).sum(1) / voxels / 0.01


def _generator_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error of the velocity from data to noise (Liu et al., arXiv 2209.03003)."""
    brain, (latents, noise, times, codes) = cast(Brain, model), rows
    velocity = brain.generator(between(latents, noise, times), times, codes)
    error: Tensor = velocity - (noise - latents)
    return error.square().flatten(1).mean(1)


def hidden(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Some conditions hidden, so that any subset can be asked for and guidance has an unconditional side."""
    one = torch.rand(codes.shape, generator=generator) < DROP_ONE
    everything = torch.rand(len(codes), 1, generator=generator) < DROP_ALL
    return torch.where(one | everything, torch.full_like(codes, MISSING), codes)
