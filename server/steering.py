"""What measured volumes are of the public's latents: the constants that bring generated people to volumes that are asked for.

A file of its own beside the prior's, so that whoever needs it not loads none of it. No patient, no privacy cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from braing3n_core.data.phantom import phantoms
from braing3n_core.flow import heun
from braing3n_core.generate import noise_of
from braing3n_core.models.brain import MEASURES, Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measures
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, extended, read_prior, write_beside
from server.optimise import Say
from server.prior import ScannedRecipe

_TOGETHER = 10                                               # people who share a scanner
_STEPS = 12                                                  # of the sampler
_OFF = 0.3                                                   # of the public's deviation: the most that their mean may be off


class SteeringRecipe(ScannedRecipe):
    """Everything that decides the constants, but for the prior whose latents they are about."""

    people: PositiveInt                                      # phantoms, every second ten of them on a scanner of its own
    ridge: PositiveFloat                                     # in latents' variance: so many people without any volume
    tried: PositiveInt                                       # generated people who are brought to each
    values: PositiveInt                                      # of every measure, to see where they come


def fit_steering(recipe: SteeringRecipe, out: Path, say: Say) -> Path:
    """Write `<out>/<preset>.steering.safetensors` (float16) with its record; return it."""
    out.mkdir(parents=True, exist_ok=True)
    source = SHIPPED / f"{recipe.preset}.safetensors"
    model = extended(read_prior(source), "steering")
    latents, volumes = zip(*_measured(recipe, model, say), strict=True)
    model.steered.fit(torch.cat(latents), torch.cat(volumes), recipe.ridge)
    _narrow(recipe, model, torch.cat(volumes), say)
    return write_beside(model, "steering", recipe.preset, recipe.model_dump(mode="json"), source, out)


@torch.no_grad()
def _narrow(recipe: SteeringRecipe, model: Brain, volumes: Tensor, say: Say) -> None:
    """Leave between `least` and `most` of every measure what generated people, asked for nothing else, really come to.

    Around what most of the public has, for as long as the mean of those who are brought there is off by less than a part of
    the public's deviation.
    """
    steering, codes = model.steered, model.codes([{"modality": "T1w"}] * recipe.tried)
    people = heun(lambda z, t: model.generator(z, t, codes), noise_of(model, recipe.seed, recipe.tried), _STEPS)
    for place, name in enumerate(MEASURES):
        asked = torch.linspace(float(steering.least[place]), float(steering.most[place]), recipe.values)
        came = torch.stack([_mean_of(model, people, place, float(value)) for value in asked])
        there = (came - asked).abs() <= _OFF * volumes[:, place].std()
        middle = int((asked - volumes[:, place].median()).abs().argmin())
        wrong = (~there).nonzero()[:, 0]
        below, above = wrong[wrong < middle], wrong[wrong > middle]
        steering.least[place] = asked[int(below.max()) + 1 if len(below) else 0]
        steering.most[place] = asked[int(above.min()) - 1 if len(above) else -1]
        say(f"people can be brought to {name} of {float(steering.least[place]):.0f} to {float(steering.most[place]):.0f} ml")


def _mean_of(model: Brain, people: Tensor, place: int, value: float) -> Tensor:
    """() ml: mean of one measure on people who were brought to a value of it."""
    wanted = torch.full((len(people), len(MEASURES)), torch.nan)
    wanted[:, place] = value
    volumes = torch.cat([model.decode(part) for part in model.steered(people, wanted).split(8)])
    return torch.tensor(measures(volumes, model.preset)[f"{MEASURES[place]}_ml"].mean())


@torch.no_grad()
def _measured(recipe: SteeringRecipe, model: Brain, say: Say) -> Iterator[tuple[Tensor, Tensor]]:
    """(B, N, C) latents of phantoms and (B, V) what is measured on them once they are decoded, as on generated people."""
    draw = random.Random(recipe.seed)  # noqa: S311 - public phantoms, no secrets
    for number, first in enumerate(range(0, recipe.people, _TOGETHER)):
        varied, count = recipe.scanner(draw), min(_TOGETHER, recipe.people - first)
        scanner = Hospital(name="public") if number % 2 else varied
        seen = torch.stack([volume for volume, _ in phantoms(PRESETS[recipe.preset], count, recipe.seed + number, scanner)])
        latents = model.encode(seen.float())
        found = measures(model.decode(latents), model.preset)
        yield latents, torch.from_numpy(np.stack(list(found.values()), 1))
        if (first + count) % 100 == 0:
            say(f"phantoms: {first + count} of {recipe.people}")
