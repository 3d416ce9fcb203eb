"""What each stage learns from a patient: the rows drawn from cached tensors, and the loss of each row.

Every random draw (scan, mask, time, noise, dropped condition) is made here, outside the networks, so that any gradient
engine sees one fixed function of the rows. B rows, N tokens, C channels, V voxels of a cube, M conditioning variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from braing3n_core.flow import between, middle, time_shift
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.population import MISSING
from braing3n_core.models.presets import LONGEST_YEARS
from braing3n_core.models.tokenizer import mask_tokens, masked_loss
from braing3n_core.plan import Learns, Stage, StageName
from privacy.dp_sgd import RowLoss, Rows

if TYPE_CHECKING:
    from braing3n_core.data.cohort import Scan

LATENT_NOISE = 0.25                                          # largest deviation added to latents for the decoder (RAE)
DROP_ONE = 0.15                                              # chance that one condition is hidden
DROP_ALL = 0.1                                               # chance that all are
PURE_NOISE = 0.25                                            # part of a trajectory's rows at t=1, where forecasts are read


@dataclass(frozen=True)
class Prepared:
    """What a stage keeps of one patient: tensors whose leading size is the number of scans. Nothing in it is random."""

    tensors: Rows


def prepare(stage: StageName, model: Brain, scans: Sequence[Scan], others: Sequence[Scan] = ()) -> Prepared:
    """The frozen part of the stage's work on one patient's T1w scans, and those of `others`, done once.

    encoder: (S, N, V) cubes. decoder: (S, N, E) encoder tokens and (S, 1, D, H, W) volumes. generator and spread: (S, N, C)
    MEAN latents, never noisy ones, and (S, M) condition codes. trajectory: `pairs_of` visits. contrast: `shown_of` other
    modalities.
    """
    if stage == "contrast":
        return Prepared(shown_of(model, others))
    volumes = torch.stack([scan.volume for scan in scans])
    with torch.no_grad():
        match stage:
            case "encoder":
                return Prepared((model.cubes(volumes),))
            case "decoder":
                return Prepared((model.encoder(model.cubes(volumes)), volumes))
            case "generator" | "spread":
                return Prepared((model.encode(volumes), model.codes([scan.conditions for scan in scans])))
            case "trajectory":
                return Prepared(pairs_of(model, model.encode(volumes), [scan.conditions for scan in scans]))


@torch.no_grad()
def shown_of(model: Brain, scans: Sequence[Scan]) -> Rows:
    """One person's scans of other modalities -> what the stage `contrast` learns from, a row each.

    Latents (S, N, C), volumes (S, 1, D, H, W), which of the model's other modalities (S,), and ones (S,). A person without such
    a scan has one row of zeros: it has no loss, and so contributes nothing.
    """
    if not scans:
        nothing = torch.zeros(1, *model.centre.shape)
        return nothing, torch.zeros(1, 1, *model.preset.shape), torch.zeros(1), torch.zeros(1)
    volumes = torch.stack([scan.volume for scan in scans])
    latents = [model.encode(scan.volume[None], scan.modality) for scan in scans]
    which = [list(model.others).index(scan.modality) for scan in scans]
    return torch.cat(latents), volumes, torch.tensor(which, dtype=torch.float32), torch.ones(len(scans))


def pairs_of(model: Brain, latents: Tensor, rows: Sequence[Mapping[str, Condition]]) -> Rows:
    """(S, N, C) latents of one person's scans and their conditions -> what a trajectory learns from, one row per pair.

    A pair is two scans of one modality, the second at a greater age, at most LONGEST_YEARS later: latents of the first
    (P, N, C), their change in units of the model's scale (P, N, C), codes of the first (P, M), years (P,), and ones (P,).
    A person without a pair has one row of zeros: it has no loss, and so contributes nothing.
    """
    codes = model.codes(rows)
    gaps = [(i, j, years_between(one, two)) for i, one in enumerate(rows) for j, two in enumerate(rows)]
    found = [pair for pair in gaps if pair[2] > 0]
    if not found:
        nothing = torch.zeros_like(latents[:1])
        return nothing, nothing, torch.zeros_like(codes[:1]), torch.zeros(1), torch.zeros(1)
    first, second = (torch.tensor([pair[place] for pair in found]) for place in (0, 1))
    change = (latents[second] - latents[first]) / model.years.scale
    return latents[first], change, codes[first], torch.tensor([years for *_, years in found]), torch.ones(len(found))


def years_between(one: Mapping[str, Condition], two: Mapping[str, Condition]) -> float:
    """From the first scan to the second; zero if they are no pair."""
    before, after = one.get("age"), two.get("age")
    if before is None or after is None or one.get("modality") != two.get("modality"):
        return 0.0
    years = float(after) - float(before)
    return years if 0 < years <= LONGEST_YEARS else 0.0


def make_rows(prepared: Prepared, stage: Stage, model: Brain, generator: torch.Generator) -> Rows:
    """K = `stage.views` rows of one patient, each a random scan with fresh draws, or those that were drawn once."""
    if stage.once:
        return prepared.tensors
    return draw_rows(stage.name, prepared.tensors, model, stage.views, generator)


@torch.no_grad()
def drawn_once(prepared: Prepared, stage: Stage, model: Brain, generator: torch.Generator) -> Prepared:
    """What a stage that draws once keeps of one patient: K = `stage.views` rows, and how far each lies from such people.

    At pure noise the network does not see the shift that is learned, so what it says is the same in every step and round: it is
    asked once, and a step costs a product of small matrices. generator: gaps (K, N, C), codes (K, M). spread: (K, R), of
    `Spread.apart`, from the mean that an earlier stage has moved. trajectory: gaps (K, N, C) in units of the model's scale,
    codes (K, M), years (K,), and whether the row is a pair (K,).
    """
    rows = draw_rows(stage.name, prepared.tensors, model, stage.views, generator, "mean")
    if stage.name == "trajectory":
        first, change, noise, times, codes, years, there = rows
        return Prepared((model.years.unmoved(noise, times, first, codes, years) - noise + change, codes, years, there))
    latents, noise, times, codes = rows
    if stage.name == "spread":
        gaps = latents - middle(lambda z, t: model.generator(z, t, codes), noise)
        return Prepared((model.spreading.apart(model.generator.population, gaps),))
    return Prepared((model.generator.velocity(noise, times, codes) - noise + latents, codes))


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
        case "decoder" | "contrast":
            deviation = LATENT_NOISE * torch.rand(count, 1, 1, generator=generator)
            return (*rows, deviation * torch.randn(count, *model.centre.shape, generator=generator))
        case "generator" | "spread":
            latents, codes = rows
            noise = torch.randn(latents.shape, generator=generator)
            times = time_shift(torch.rand(count, generator=generator), latents[0].numel())
            times = torch.ones_like(times) if learns == "mean" else times
            return latents, noise, times, hidden(codes, generator)
        case "trajectory":
            first, change, codes, years, there = rows
            noise, times = torch.randn(change.shape, generator=generator), torch.rand(count, generator=generator)
            pure = torch.rand(count, generator=generator) < (1.0 if learns == "mean" else PURE_NOISE)
            return first, change, noise, times.masked_fill(pure, 1.0), hidden(codes, generator), years, there


def row_loss(stage: StageName, learns: Learns = "flow") -> RowLoss:
    """The stage's loss of each row, (B,)."""
    return (_LOSSES if learns == "flow" else _MEAN_LOSSES)[stage]


def _encoder_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error of the hidden cubes (He et al., arXiv 2111.06377)."""
    brain, (cubes, keep) = cast(Brain, model), rows
    return masked_loss(brain.encoder, brain.masked, cubes, keep)


def _decoder_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error inside the brain, in units of 0.01, from latents with noise on them (RAE, arXiv 2510.11690)."""
    brain, (tokens, volumes, noise) = cast(Brain, model), rows
    return _apart(brain, brain.decode(brain.latents(tokens) + noise), volumes)


def _contrast_loss(model: nn.Module, rows: Rows) -> Tensor:
    """The decoder's loss by each row's modality; zero for a row that is no scan."""
    brain, (latents, volumes, which, there, noise) = cast(Brain, model), rows
    losses = [
        (which == place) * _apart(brain, brain.decode(latents + noise, name), volumes)
        for place, name in enumerate(brain.others)
    ]
    return there * torch.stack(losses).sum(0)


def _apart(brain: Brain, made: Tensor, volumes: Tensor) -> Tensor:
    """(B,) squared error inside the brain, in units of 0.01."""
    error: Tensor = (made - volumes).square() * brain.decoder.brain
    voxels: Tensor = brain.decoder.brain.sum()
    return error.flatten(1).sum(1) / voxels / 0.01


def _generator_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error of the velocity from data to noise (Liu et al., arXiv 2209.03003)."""
    brain, (latents, noise, times, codes) = cast(Brain, model), rows
    velocity = brain.generator(between(latents, noise, times), times, codes)
    error: Tensor = velocity - (noise - latents)
    return error.square().flatten(1).mean(1)


def _trajectory_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Squared error of the velocity from the change to noise; zero for a row that is no pair of visits."""
    first, change, noise, times, codes, years, there = rows
    velocity = cast(Brain, model).years(between(change, noise, times), times, first, codes, years)
    error: Tensor = velocity - (noise - change)
    return there * error.square().flatten(1).mean(1)


def _place_loss(model: nn.Module, rows: Rows) -> Tensor:
    """`_generator_loss` at pure noise, from gaps."""
    gaps, codes = rows
    error: Tensor = gaps - cast(Brain, model).generator.shift(codes)
    return error.square().flatten(1).mean(1)


def _pace_loss(model: nn.Module, rows: Rows) -> Tensor:
    """`_trajectory_loss` at pure noise, from gaps."""
    gaps, codes, years, there = rows
    return there * (gaps - cast(Brain, model).years.shift(codes, years)).square().flatten(1).mean(1)


def _spread_loss(model: nn.Module, rows: Rows) -> Tensor:
    """How unlikely it is that people who are spread as the model says lie where these rows do."""
    return cast(Brain, model).spreading.surprise(*rows)


_MEAN_LOSSES: dict[StageName, RowLoss] = {"generator": _place_loss, "trajectory": _pace_loss}
_LOSSES: dict[StageName, RowLoss] = {
    "encoder": _encoder_loss,
    "decoder": _decoder_loss,
    "generator": _generator_loss,
    "spread": _spread_loss,
    "trajectory": _trajectory_loss,
    "contrast": _contrast_loss,
}


def hidden(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Some conditions hidden, so that any subset can be asked for and guidance has an unconditional side."""
    one = torch.rand(codes.shape, generator=generator) < DROP_ONE
    everything = torch.rand(len(codes), 1, generator=generator) < DROP_ALL
    return torch.where(one | everything, torch.full_like(codes, MISSING), codes)
