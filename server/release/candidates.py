"""More synthetic people than are asked for, so that one who fails a gate is replaced by the next and not by a closer look.

Which candidates make the release is a function of the candidates themselves and of the sites' noisy bits, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from braing3n_core.census import Shares
from braing3n_core.errors import GateBlocked
from braing3n_core.plan import Release
from server.release.cohort import Person, Variable, draw
from server.release.policy import Copies


@dataclass(frozen=True)
class Candidate:
    """One synthetic person who may be in the release. `index` is its place in the noise of the release's seed."""

    index: int
    cell: int
    person: Person


def candidates(
    release: Release, variables: Sequence[Variable], rules: Copies, voted: bool, census: Shares | None = None
) -> list[Candidate]:
    """Everyone who is asked for, in the order of `cohort.draw`, then the spares, cell by cell."""
    asked = [number for number, cell in enumerate(release.cells) for _ in range(cell.count)]
    counts = [rules.spares(cell.count, voted) for cell in release.cells]
    spare = [cell.model_copy(update={"count": n}) for cell, n in zip(release.cells, counts, strict=True) if n]
    cells = asked + [number for number, n in enumerate(counts) for _ in range(n)]
    spares = release.model_copy(update={"cells": tuple(spare), "seed": release.seed + 1})
    people = [*draw(release, variables, census), *(draw(spares, variables, census) if spare else [])]
    return [Candidate(index, cell, person) for index, (cell, person) in enumerate(zip(cells, people, strict=True))]


def chosen(release: Release, pool: Sequence[Candidate], rejected: Mapping[int, str]) -> list[Candidate]:
    """The first candidates of each cell that were not rejected, in the order of the cells, renamed sub-syn0001 and on.

    Raises GateBlocked if a cell has too few left.
    """
    taken: list[Candidate] = []
    for number, cell in enumerate(release.cells):
        left = [one for one in pool if one.cell == number and one.index not in rejected]
        if len(left) < cell.count:
            lost = len([one for one in pool if one.cell == number]) - len(left)
            why = next((rejected[one.index] for one in pool if one.cell == number and one.index in rejected), "none was made")
            raise GateBlocked(
                f"cell {number + 1} asks for {cell.count} people and {len(left)} candidates are left, {lost} were rejected, "
                f"the first because {why}; raise copies.spare in the policy, or train longer"
            )
        taken += left[: cell.count]
    width = max(4, len(str(len(taken))))
    return [
        Candidate(one.index, one.cell, Person(f"sub-syn{place:0{width}d}", one.person.conditions))
        for place, one in enumerate(taken, start=1)
    ]
