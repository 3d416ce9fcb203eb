"""The public prior: every network trained on phantoms alone, before any hospital is asked. No patient, no privacy cost.

Phases: the masked autoencoder; a projection in closed form; the decoder; the directions in which populations differ, in
closed form; the generator. Every draw follows from (seed, phase, step), so a run that was stopped goes on to the same
weights.
"""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError
from torch import Tensor, nn

from braing3n_core.data.phantom import Truth, phantoms
from braing3n_core.data.template import template
from braing3n_core.errors import PlanRefused
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.modality import Modality
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.models.tokenizer import hidden_error
from braing3n_core.models.trainable import NETWORKS
from braing3n_core.morphometry import measure
from braing3n_core.plan import DEFAULT_VARIABLES, Frozen, Hospital, PresetName, StageName
from braing3n_core.prior import write_prior
from braing3n_core.training import LATENT_NOISE, draw_rows, row_loss
from privacy.dp_sgd import Rows
from server.losses import spectral_loss, structural_loss
from server.optimise import Phase, Say, fit
from server.population import fit_population

BatchLoss = Callable[[Brain, Rows], Tensor]                  # rows of a batch -> ()
_AT_ONCE = 64                                                # volumes encoded together
_PER_SCANNER = 25                                            # varied phantoms that share one scanner
# The projection stays as fitted: against a fixed noise it would grow rather than the decoder become robust. The style of a
# scanner and the place of a population are zero for the public.
_LEFT_AS_THEY_ARE = (
    "projection.", "decoder.style.", "generator.population.", "generator.common.", "trajectory.pace.",
    "others.FLAIR.decoder.style.",
)  # fmt: skip


class PublicRecipe(Frozen):
    """What everything that is made of phantoms alone is told: for which grid, and where its draws begin."""

    preset: PresetName
    seed: int

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe from TOML. Raises PlanRefused in words."""
        try:
            return cls.model_validate_json(json.dumps(tomllib.loads(path.read_text(encoding="utf-8"))))
        except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
            why = " ".join(str(error).split())[:200]
            raise PlanRefused(f"{path} is not a recipe of public training ({why}); correct it and run again") from error


class ScannedRecipe(PublicRecipe):
    """What is told besides where phantoms are of many scanners: which."""

    contrast: tuple[float, float]                            # what scanners are drawn from; see plan.Hospital
    bias: tuple[float, float]
    folding: tuple[float, float]                             # mm

    def scanner(self, draw: random.Random) -> Hospital:
        """The next scanner from the recipe's ranges."""
        contrast, bias, folding = (draw.uniform(*ends) for ends in (self.contrast, self.bias, self.folding))
        return Hospital(name="varied", contrast=contrast, bias=bias, folding=folding)


class AveragedRecipe(PublicRecipe):
    """What every training on phantoms is told besides: how it averages."""

    ema: Annotated[float, Field(gt=0, lt=1)]                 # decay of the averaged weights, per step


class TrainingRecipe(ScannedRecipe, AveragedRecipe):
    """Training on phantoms of many scanners."""


class EncoderPhase(Phase):
    """The masked autoencoder's: squared error, and so much of the error of spectra beside it."""

    frequency: NonNegativeFloat = 0.0


class DecoderPhase(Phase):
    """The decoder's: squared error, or the absolute one and so much of what structural similarity lacks."""

    structural: NonNegativeFloat = 0.0


class PriorRecipe(TrainingRecipe):
    """Everything that decides the prior's weights."""

    people: PositiveInt                                      # phantoms of the public population, for mean and generator
    varied: PositiveInt                                      # phantoms of many scanners, for encoder and decoder
    encoder: EncoderPhase
    decoder: DecoderPhase
    generator: Phase


def train_prior(recipe: PriorRecipe, out: Path, say: Say) -> Path:
    """Train a prior and write `<out>/<preset>.safetensors` (float16) with its record beside it; return the first."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)                           # initial weights
    model = Brain(PRESETS[recipe.preset], DEFAULT_VARIABLES).requires_grad_(False)
    say(f"phantoms: {recipe.people} of the public population, {recipe.varied} of many scanners")
    people, truths = public_people(recipe)
    model.decoder.mean.copy_(people.mean(0, dtype=torch.float32)[0].half())
    varied = varied_volumes(recipe)
    cubes = batched(model.cubes, varied)
    train_stage("encoder", model, (cubes,), recipe.encoder, recipe, out, say, _encoder_loss(recipe.encoder))
    tokens = batched(model.encoder, cubes)
    fit_projection(model, tokens, cubes)
    train_stage("decoder", model, (tokens, varied), recipe.decoder, recipe, out, say, _decoder_loss(recipe.decoder))
    codes = model.codes([conditions_of(truth, volume, model.preset) for truth, volume in zip(truths, people, strict=True)])
    latents = batched(model.encode, people)
    scanners = scanner_means(batched(model.encode, varied))
    fit_population(model.generator.population, latents.float(), codes, scanners, recipe.seed)
    train_stage("generator", model, (latents, codes), recipe.generator, recipe, out, say)
    return write_prior(model, recipe.preset, recipe.model_dump(mode="json", exclude_defaults=True), out)


@torch.no_grad()
def fit_projection(model: Brain | Modality, tokens: Tensor, cubes: Tensor) -> None:
    """Projection, centre, scale and the decoder's linear part in closed form, from (S, N, E) tokens and (S, N, V) cubes.

    The projection is the rank-C linear map of tokens that best predicts cubes (reduced-rank regression, Izenman 1975);
    each latent axis keeps the square root of its spread, so that weak axes survive the decoder's noise and strong ones
    still lead. The linear part is ridge regression at every position, with that noise as the ridge.
    """
    rank = model.projection.out_features
    x, y = tokens.float(), cubes.float()
    flat_x, flat_y = (x - x.mean(0)).flatten(0, 1), (y - y.mean(0)).flatten(0, 1)
    gram = flat_x.T @ flat_x
    gram += 1e-4 * gram.trace() / len(gram) * torch.eye(len(gram))
    best = torch.linalg.solve(gram, flat_x.T @ flat_y)                                         # (E, V)
    _, _, axes = torch.linalg.svd(torch.linalg.cholesky(gram).T @ best, full_matrices=False)
    down = best @ axes[:rank].T                                                                # (E, C)
    down = down / (flat_x @ down).std(0).sqrt()
    latents = x @ down
    centre = latents.mean(0)
    spread = (latents - centre).square().mean().sqrt()
    model.projection.weight.copy_(down.T)
    model.projection.bias.zero_()
    model.centre.copy_(centre)
    model.scale.fill_(float(spread))
    z = ((latents - centre) / spread).transpose(0, 1)                                          # (N, S, C)
    noise = len(x) * LATENT_NOISE**2 / 3 * torch.eye(rank)   # the deviation is uniform, so its mean square is a third
    model.decoder.linear.weight.copy_(torch.linalg.solve(z.mT @ z + noise, z.mT @ y.transpose(0, 1)))


def train_stage(
    stage: StageName, model: Brain, data: Rows, phase: Phase, recipe: TrainingRecipe, out: Path, say: Say,
    loss: BatchLoss | None = None,
) -> None:  # fmt: skip
    """Train the stage's networks on rows of `data`; the model ends with the averaged weights, frozen.

    `loss` of a batch is used in place of the mean of the stage's own.
    """
    loss_of = loss or _stage_loss(stage)

    def loss_at(draw: torch.Generator) -> Tensor:
        rows = draw_rows(stage, data, model, phase.batch, draw)
        return loss_of(model, tuple(row.float() if row.is_floating_point() else row for row in rows))

    train_networks(stage, NETWORKS[stage], model, loss_at, phase, recipe, out, say)


def _stage_loss(stage: StageName) -> BatchLoss:
    return lambda model, rows: row_loss(stage)(model, rows).mean()


def _encoder_loss(phase: EncoderPhase) -> BatchLoss:
    def loss(model: Brain, rows: Rows) -> Tensor:
        cubes, keep = rows
        predicted = model.masked(model.encoder(cubes, keep), keep)
        squared = hidden_error(predicted, cubes, keep).mean()
        return squared + phase.frequency * spectral_loss(predicted, cubes, keep, model.preset.patch)

    return loss if phase.frequency else _stage_loss("encoder")


def _decoder_loss(phase: DecoderPhase) -> BatchLoss:
    def loss(model: Brain, rows: Rows) -> Tensor:
        tokens, volumes, noise = rows
        made = model.decode(model.latents(tokens) + noise)
        return structural_loss(made, volumes, model.decoder.brain, phase.structural)

    return loss if phase.structural else _stage_loss("decoder")


def train_networks(
    label: str, networks: Sequence[str], model: nn.Module, loss_at: Callable[[torch.Generator], Tensor], phase: Phase,
    recipe: AveragedRecipe, out: Path, say: Say,
) -> None:  # fmt: skip
    """Minimise `loss_at(draw)` over the networks; the model ends with the averaged weights, frozen."""
    own = tuple(f"{network}." for network in networks)
    weights = {n: p for n, p in model.named_parameters() if n.startswith(own) and not n.startswith(_LEFT_AS_THEY_ARE)}
    for parameter in weights.values():
        parameter.requires_grad_(True)

    def at(step: int) -> Tensor:
        return loss_at(torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))

    average = fit(label, weights, at, phase, recipe.ema, out / f".{label}.safetensors", say)
    model.load_state_dict(average, strict=False)
    model.requires_grad_(False)


def public_people(recipe: PriorRecipe) -> tuple[Tensor, list[Truth]]:
    """(S, 1, D, H, W) float16 phantoms of the public population and what was asked of each."""
    found = list(phantoms(PRESETS[recipe.preset], recipe.people, recipe.seed, Hospital(name="public")))
    return torch.stack([volume.half() for volume, _ in found]), [truth for _, truth in found]


def conditions_of(truth: Truth, volume: Tensor, preset: Preset) -> dict[str, Condition]:
    """What a hospital's table and the same measurements would say of this phantom."""
    measured = asdict(measure(volume.float(), template(preset), preset.spacing_mm))
    return {
        "age": truth.age,
        "sex": truth.sex,
        "diagnosis": truth.diagnosis,
        "modality": "T1w",
        "lesions": truth.lesions_ml,
        **{name.removesuffix("_ml"): value for name, value in measured.items()},
    }


def varied_volumes(recipe: PriorRecipe) -> Tensor:
    """(S, 1, D, H, W) float16 phantoms, 25 of each of many scanners drawn from the recipe's ranges."""
    draw = random.Random(recipe.seed)  # noqa: S311 - public phantoms, no secrets
    volumes: list[Tensor] = []
    for number in range(math.ceil(recipe.varied / _PER_SCANNER)):
        found = phantoms(PRESETS[recipe.preset], _PER_SCANNER, recipe.seed + 1 + number, recipe.scanner(draw))
        volumes += [volume.half() for volume, _ in found]
    return torch.stack(volumes[: recipe.varied])


def scanner_means(latents: Tensor) -> Tensor:
    """(S, N, C) latents of `varied_volumes`, in its order -> (K, N, C), one mean per whole scanner."""
    return torch.stack([part.float().mean(0) for part in latents.split(_PER_SCANNER) if len(part) == _PER_SCANNER])


@torch.no_grad()
def batched(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """`function` of a few rows at a time, kept as float16."""
    return torch.cat([function(part.float()).half() for part in inputs.split(_AT_ONCE)])
