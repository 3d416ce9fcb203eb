"""A public modality beside the prior: what else another sequence shows of phantoms, learned on the prior's own encoder.

Phases: mean volume and projection in closed form, the decoder, and the flow from latents of the T1w to those of the modality.
The prior stays as it is, and the file lies beside the prior's. No patient, no privacy cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from braing3n_core.data.patient import Person, Wishes, people
from braing3n_core.flow import between
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import T1W, Hospital
from braing3n_core.prior import SHIPPED, extended, read_prior, write_beside
from braing3n_core.training import PURE_NOISE, hidden
from privacy.dp_sgd import Rows
from server.optimise import Phase, Say
from server.prior import TrainingRecipe, batched, fit_projection, train_networks, train_stage
from server.trajectory import visits_of

_TOGETHER = 10                                               # people who share a scanner


class ModalityRecipe(TrainingRecipe):
    """Everything that decides a modality's weights, but for the prior whose latents they are about."""

    modality: Literal["FLAIR"]
    people: PositiveInt                                      # phantoms: half with lesions at any age, half on other scanners
    decoder: Phase
    translation: Phase


def train_modality(recipe: ModalityRecipe, out: Path, say: Say) -> Path:
    """Train a modality and write `<out>/<preset>.<modality>.safetensors` (float16) with its record; return the first."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)                           # initial weights
    source = SHIPPED / f"{recipe.preset}.safetensors"
    model = extended(read_prior(source), recipe.modality)
    own = model.modality(recipe.modality)
    say(f"phantoms: {recipe.people} people with T1w and {recipe.modality}")
    first, volumes, codes = _pairs(recipe, model, say)
    own.decoder.mean.copy_(volumes.mean(0, dtype=torch.float32)[0].half())
    cubes = batched(own.cubes, volumes)
    tokens = batched(model.encoder, cubes)
    fit_projection(own, tokens, cubes)
    latents, ones = batched(own.latents, tokens), torch.ones(len(tokens))
    train_stage("contrast", model, (latents, volumes, 0 * ones, ones), recipe.decoder, recipe, out, say)
    _train_translation(recipe, model, (latents, first, codes), out, say)
    return write_beside(model, recipe.modality, recipe.preset, recipe.model_dump(mode="json"), source, out)


def _train_translation(recipe: ModalityRecipe, model: Brain, data: Rows, out: Path, say: Say) -> None:
    translation, phase = model.modality(recipe.modality).translation, recipe.translation

    def loss_at(draw: torch.Generator) -> Tensor:
        """Squared error of the velocity from the modality's latents to noise."""
        chosen = torch.randint(len(data[0]), (phase.batch,), generator=draw)
        latents, first, codes = (rows[chosen].float() for rows in data)
        noise, times = torch.randn(latents.shape, generator=draw), torch.rand(phase.batch, generator=draw)
        times = times.masked_fill(torch.rand(phase.batch, generator=draw) < PURE_NOISE, 1.0)
        velocity = translation(between(latents, noise, times), times, first, hidden(codes, draw))
        error: Tensor = velocity - (noise - latents)
        return error.square().mean()

    networks = (f"others.{recipe.modality}.translation",)
    train_networks("translation", networks, model, loss_at, phase, recipe, out, say)


def _pairs(recipe: ModalityRecipe, model: Brain, say: Say) -> Rows:
    """(S, N, C) T1w latents, (S, 1, D, H, W) volumes of the modality, and (S, M) codes of the same people."""
    found = []
    for done, person in enumerate(_people(recipe), start=1):
        (visit,), (known,) = person.visits, visits_of(person, model.preset)
        first = batched(model.encode, visit.images[T1W][None, None])
        found.append((first, visit.images[recipe.modality][None, None].half(), model.codes([known])))
        if done % 100 == 0:
            say(f"phantoms: {done} of {recipe.people}")
    first, volumes, codes = (torch.cat(rows) for rows in zip(*found, strict=True))
    return first, volumes, codes


def _people(recipe: ModalityRecipe) -> Iterator[Person]:
    """Ten at a time on a scanner drawn from the recipe's ranges; every second ten on the public's.

    Half of both have lesions at any age: they are what a FLAIR is for, and in the population as it is few have any.
    """
    draw = random.Random(recipe.seed)  # noqa: S311 - public phantoms, no secrets
    for number, first in enumerate(range(0, recipe.people, _TOGETHER)):
        varied = recipe.scanner(draw)
        scanner = Hospital(name="public") if number % 2 else varied
        count = min(_TOGETHER, recipe.people - first)
        wishes = Wishes(modalities=(T1W, recipe.modality), lesions_at_any_age=number % 4 < 2)
        yield from people(PRESETS[recipe.preset], count, recipe.seed + number, scanner, wishes)
