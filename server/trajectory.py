"""The public trajectory: what years do to phantoms, learned on the latents of a prior that stays as it is.

Both visits of a pair have one receive field and noise. With new ones at every visit, the first scan's own would be part of what
is expected to go away, and a forecast would clean the scan besides ageing the person.

It is a file of its own beside the prior's, so that whoever needs no visits loads none of it. No patient, no privacy cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import PositiveInt

from braing3n_core.data.patient import Person, Wishes, people
from braing3n_core.data.phantom import Truth
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.presets import LONGEST_YEARS, PRESETS, Preset
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, extended, read_prior, write_beside
from braing3n_core.training import pairs_of
from privacy.dp_sgd import Rows
from server.optimise import Phase, Say
from server.population import fit_pace
from server.prior import TrainingRecipe, batched, conditions_of, train_stage

_TOGETHER = 10                                               # people who share a scanner and the years between their visits
_FAR = 0.5                                                   # of the longest gap: pairs that rates are taken from


class TrajectoryRecipe(TrainingRecipe):
    """Everything that decides the trajectory's weights, but for the prior whose latents they are about."""

    people: PositiveInt                                      # phantoms, every second ten of them on a scanner of its own
    visits: PositiveInt                                      # of each
    years: tuple[float, float]                               # between two visits
    trajectory: Phase


def train_trajectory(recipe: TrajectoryRecipe, out: Path, say: Say) -> Path:
    """Train a trajectory and write `<out>/<preset>.trajectory.safetensors` (float16) with its record; return the first."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)                           # initial weights
    source = SHIPPED / f"{recipe.preset}.safetensors"
    model = extended(read_prior(source), "trajectory")
    say(f"phantoms: {recipe.people} people with {recipe.visits} visits each")
    data = _pairs(recipe, model, say)
    change, codes, years = data[1:4]
    far = years >= _FAR * LONGEST_YEARS
    fit_pace(model.years.pace, change[far].float() * (LONGEST_YEARS / years[far])[:, None, None], codes[far], recipe.seed)
    train_stage("trajectory", model, data, recipe.trajectory, recipe, out, say)
    return write_beside(model, "trajectory", recipe.preset, recipe.model_dump(mode="json"), source, out)


def _pairs(recipe: TrajectoryRecipe, model: Brain, say: Say) -> Rows:
    """Every pair of visits of every person; the model's scale is set from them."""
    found = []
    for done, person in enumerate(_people(recipe), start=1):
        volumes = torch.stack([visit.images["T1w"][None] for visit in person.visits])
        found.append(pairs_of(model, batched(model.encode, volumes), visits_of(person, model.preset)))
        if done % 100 == 0:
            say(f"phantoms: {done} of {recipe.people}")
    first, change, codes, years, there = (torch.cat(rows) for rows in zip(*found, strict=True))
    scale = change.float().square().mean().sqrt()
    model.years.scale.copy_(scale)
    return first, (change / scale).half(), codes, years, there


def _people(recipe: TrajectoryRecipe) -> Iterator[Person]:
    """Ten at a time: years between visits, and a scanner, drawn from the recipe's ranges; every second ten on the public's."""
    draw = random.Random(recipe.seed)  # noqa: S311 - public phantoms, no secrets
    for number, first in enumerate(range(0, recipe.people, _TOGETHER)):
        years, varied = draw.uniform(*recipe.years), recipe.scanner(draw)
        count = min(_TOGETHER, recipe.people - first)
        scanner = Hospital(name="public") if number % 2 else varied
        wishes = Wishes(visits=recipe.visits, years=years, rescanned=False)
        yield from people(PRESETS[recipe.preset], count, recipe.seed + number, scanner, wishes)


def visits_of(person: Person, preset: Preset) -> list[dict[str, Condition]]:
    """Each visit's conditions, as a hospital's table and its measurements would say."""
    return [
        conditions_of(
            Truth(visit.age, person.sex, person.diagnosis, visit.truth["ventricles"], visit.truth["lesions"]),
            visit.images["T1w"][None],
            preset,
        )
        for visit in person.visits
    ]
