"""More synthetic people than are asked for, so that one who fails a gate is replaced by the next and not by a closer look.

Which candidates make the release is a function of the candidates themselves and of the sites' noisy bits, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from braing3n_core.census import Shares
from braing3n_core.errors import GateBlocked
from braing3n_core.generate import batch_for
from braing3n_core.models.brain import Brain
from braing3n_core.people import Wanted, images
from braing3n_core.plan import Release, TrainingPlan
from server.release.cohort import Person, Variable, draw, seen
from server.release.policy import Copies


@dataclass(frozen=True)
class Candidate:
    """One image that may be in the release: a synthetic person at one visit, in one modality."""

    index: int                                               # its place among the candidates
    cell: int
    person: Person
    number: int                                              # of the person in the noise of the release's seed


def candidates(
    release: Release, variables: Sequence[Variable], rules: Copies, voted: bool, census: Shares | None = None
) -> list[Candidate]:
    """Everyone who is asked for, in the order of `cohort.draw`, then the spares, cell by cell."""
    asked = [number for number, cell in enumerate(release.cells) for _ in range(cell.count)]
    counts = [rules.spares(cell.count, voted, cell.visits * len(cell.modalities)) for cell in release.cells]
    spare = [cell.model_copy(update={"count": n}) for cell, n in zip(release.cells, counts, strict=True) if n]
    cells = asked + [number for number, n in enumerate(counts) for _ in range(n)]
    spares = release.model_copy(update={"cells": tuple(spare), "seed": release.seed + 1})
    people = [*draw(release, variables, census), *(draw(spares, variables, census) if spare else [])]
    images = [
        (cell, visit, number)
        for number, (cell, person) in enumerate(zip(cells, people, strict=True))
        for visit in seen(person, release.cells[cell])
    ]
    return [Candidate(index, *image) for index, image in enumerate(images)]


def volumes_of(
    plan: TrainingPlan, model: Brain, pool: Sequence[Candidate], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """(c, 1, D, H, W): the candidates' images, each a function of plan, model, and the person's number, years and modality."""
    release = plan.release
    wanted = [Wanted(one.person.conditions, one.number, one.person.years, one.person.modality) for one in pool]
    batch = batch_for(plan.model)
    return images(model, wanted, release.seed, steps=release.steps, guidance=release.weights, batch=batch, progress=progress)


def chosen(release: Release, pool: Sequence[Candidate], rejected: Mapping[int, str]) -> list[Candidate]:
    """The first people of each cell without a rejected image, in the order of the cells, renamed sub-syn0001 and on.

    All images of a person stand or fall together. Raises GateBlocked if a cell has too few people left.
    """
    out = {one.number for one in pool if one.index in rejected}
    taken: list[int] = []
    for number, cell in enumerate(release.cells):
        everybody = sorted({one.number for one in pool if one.cell == number})
        left = [person for person in everybody if person not in out]
        if len(left) < cell.count:
            lost = len(everybody) - len(left)
            why = next((rejected[one.index] for one in pool if one.cell == number and one.index in rejected), "none was made")
            raise GateBlocked(
                f"cell {number + 1} asks for {cell.count} people and {len(left)} candidates are left, {lost} were rejected, "
                f"the first because {why}; raise copies.spare in the policy, or train longer"
            )
        taken += left[: cell.count]
    width = max(4, len(str(len(taken))))
    name = {person: f"sub-syn{place:0{width}d}" for place, person in enumerate(taken, start=1)}
    images = [one for one in pool if one.number in name]
    images.sort(key=lambda one: (name[one.number], one.index))
    return [replace(one, person=replace(one.person, name=name[one.number])) for one in images]
