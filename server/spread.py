"""How the prior's people are spread along the public directions: what hospitals tell their own beside.

It is a file of its own beside the prior's, so that whoever needs it not loads none of it. No patient, no privacy cost.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import PositiveInt
from torch import Tensor

from braing3n_core.data.patient import Wishes, people
from braing3n_core.flow import heun, middle
from braing3n_core.generate import guided_field, noise_of
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.models.spread import student
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, extended, read_prior, write_beside
from braing3n_core.training import hidden
from server.optimise import Say
from server.prior import PublicRecipe
from server.trajectory import visits_of

_AT_ONCE = 16


class SpreadRecipe(PublicRecipe):
    """Everything that decides the constants, but for the prior whose people they are about."""

    people: PositiveInt                                      # phantoms whose conditions are asked for, some of them hidden
    steps: PositiveInt                                       # of the sampler


def measure_spread(recipe: SpreadRecipe, out: Path, say: Say) -> Path:
    """Write `<out>/<preset>.spread.safetensors` (float16) with its record; return it."""
    out.mkdir(parents=True, exist_ok=True)
    source = SHIPPED / f"{recipe.preset}.safetensors"
    model = extended(read_prior(source), "spread")
    say(f"conditions of {recipe.people} phantoms")
    location, scale = student(_coordinates(recipe, model, say))
    model.spreading.centre.copy_(location)
    model.spreading.usual.copy_(scale)
    return write_beside(model, "spread", recipe.preset, recipe.model_dump(mode="json"), source, out)


@torch.no_grad()
def _coordinates(recipe: SpreadRecipe, model: Brain, say: Say) -> Tensor:
    """(n, R) of generated people, each from the mean of its own conditions."""
    found = people(PRESETS[recipe.preset], recipe.people, recipe.seed, Hospital(name="public"), Wishes())
    rows = [visits_of(person, model.preset)[0] for person in found]
    codes = hidden(model.codes(rows), torch.Generator().manual_seed(recipe.seed))
    noise, each = noise_of(model, recipe.seed, len(codes)), []
    for part, start in zip(codes.split(_AT_ONCE), noise.split(_AT_ONCE), strict=True):
        field = guided_field(model.generator, model.variables, part, 1.0)
        each.append(model.generator.population.along(heun(field, start, recipe.steps) - middle(field, start)))
        say(f"people: {sum(map(len, each))} of {recipe.people}")
    return torch.cat(each)
