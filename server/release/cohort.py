"""Who is in the release: synthetic people drawn from the plan's cells, or as the census found them; never from patients."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from braing3n_core.census import Shares, drawn
from braing3n_core.errors import PlanRefused
from braing3n_core.models.brain import Condition
from braing3n_core.plan import T1W, Categorical, Cell, Continuous, Release

Variable = Continuous | Categorical
_DECIMALS = 2


@dataclass(frozen=True)
class Person:
    """One image of a synthetic person, and what was asked of the generator for the first visit. None: left free."""

    name: str                                                # sub-syn0001
    conditions: dict[str, Condition]                         # every variable of the plan, at the first visit
    session: str = ""                                        # ses-01; empty where a person has one visit
    years: float = 0.0                                       # since the first visit
    modality: str = T1W

    @property
    def visit(self) -> str:
        """The name of this person's visit: sub-syn0001, or sub-syn0001_ses-01."""
        return f"{self.name}_{self.session}" if self.session else self.name

    @property
    def image(self) -> str:
        """The name of this image: its visit's, and the modality where it is not T1w."""
        return self.visit if self.modality == T1W else f"{self.visit}_{self.modality}"

    @property
    def first(self) -> bool:
        """Whether this is the image that stands for the person where people are counted: the T1w of the first visit."""
        return not self.years and self.modality == T1W

    @property
    def now(self) -> dict[str, Condition]:
        """Conditions at this visit: an age has advanced, and a number that was asked for was asked of the first visit alone."""
        if not self.years:
            return self.conditions
        words = {name: value for name, value in self.conditions.items() if isinstance(value, str)}
        age = self.conditions.get("age")
        older = {} if age is None else {"age": round(float(age) + self.years, _DECIMALS)}
        return {**dict.fromkeys(self.conditions), **words, **older}


def in_words(people: Sequence[Person]) -> str:
    """How much there is: 24 synthetic brains; 72 images of 24 synthetic people."""
    names = len({person.name for person in people})
    return f"{names} synthetic brains" if names == len(people) else f"{len(people)} images of {names} synthetic people"


def seen(person: Person, cell: Cell) -> list[Person]:
    """The person in every modality at every visit that the cell asks for."""
    once = [person]
    if cell.visits > 1:
        once = [replace(person, session=f"ses-{1 + visit:02d}", years=visit * cell.years) for visit in range(cell.visits)]
    return [replace(one, modality=modality) for one in once for modality in cell.modalities]


def draw(release: Release, variables: Sequence[Variable], census: Shares | None = None) -> list[Person]:
    """The people of a release, cell by cell: ranges uniform, levels uniform; what a cell leaves out by the `census`, if any.

    Guarantee: a function of its arguments alone, so the same plan gives the same cohort and no patient can influence it but by
    the noisy counts that the census was made of. Each variable is drawn on its own: the census knows no pairs.
    Raises PlanRefused for a value outside a variable's range, an unknown level or an unknown variable.
    """
    known = {variable.name: variable for variable in variables}
    for number, cell in enumerate(release.cells, start=1):
        for name, asked in cell.conditions.items():
            if name not in known:
                raise PlanRefused(f"release cell {number} asks for {name!r}, which the plan does not declare; declare it")
            _refuse_impossible(number, known[name], asked)
        _refuse_too_old(number, known.get("age"), cell)
    rng = np.random.default_rng(release.seed % 2**64)
    rows = [_person(cell, variables, rng, census or {}) for cell in release.cells for _ in range(cell.count)]
    width = max(4, len(str(len(rows))))
    return [Person(f"sub-syn{number:0{width}d}", row) for number, row in enumerate(rows, start=1)]


def _person(
    cell: Cell, variables: Sequence[Variable], rng: np.random.Generator, census: Shares
) -> dict[str, Condition]:
    """One draw per variable, asked for or not, so that a condition added to a cell leaves the other columns alone."""
    row: dict[str, Condition] = {}
    for variable in variables:
        part, asked = rng.random(), cell.conditions.get(variable.name, _only_level(variable))
        if asked is not None:
            row[variable.name] = _value(asked, part)
        else:
            row[variable.name] = drawn(variable, census[variable.name], part) if variable.name in census else None
    return row


def _only_level(variable: Variable) -> tuple[str, ...] | None:
    """A variable that can have one value has it, asked for or not."""
    return variable.levels if isinstance(variable, Categorical) and len(variable.levels) == 1 else None


def _value(asked: tuple[float, float] | tuple[str, ...], part: float) -> Condition:
    match asked:
        case (float() | int() as low, float() | int() as high):
            return min(max(round(low + (high - low) * part, _DECIMALS), float(low)), float(high))
        case _:
            return str(asked[int(part * len(asked))])


def _refuse_too_old(number: int, age: Variable | None, cell: Cell) -> None:
    """Raise PlanRefused if somebody would be older at the last visit than the generator knows people."""
    oldest = max((float(edge) for edge in cell.conditions.get("age", ())), default=0.0) + (cell.visits - 1) * cell.years
    if isinstance(age, Continuous) and not oldest <= age.high:
        raise PlanRefused(
            f"release cell {number}: somebody would be {oldest:g} at the last visit, the plan's ages end at {age.high:g}; "
            "ask for younger people, or for fewer years"
        )


def _refuse_impossible(cell: int, variable: Variable, asked: tuple[object, ...]) -> None:
    """Raise PlanRefused unless `asked` is a range inside a continuous variable's, or levels of a categorical one."""
    where = f"release cell {cell}, {variable.name}"
    if isinstance(variable, Categorical):
        if not asked:
            raise PlanRefused(f"{where}: no level is named; name one of {', '.join(variable.levels)} or remove the condition")
        for level in asked:
            if level not in variable.levels:
                near = difflib.get_close_matches(str(level), variable.levels, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(variable.levels)}"
                raise PlanRefused(f"{where}: {level!r} is not a level of the plan; {hint}")
        return
    match asked:
        case (float() | int() as low, float() | int() as high) if low <= high:
            if not variable.low <= low <= high <= variable.high:
                raise PlanRefused(
                    f"{where}: {low:g} to {high:g} {variable.unit} is outside the plan's range "
                    f"{variable.low:g} to {variable.high:g}; ask for what the generator was trained on"
                )
        case _:
            raise PlanRefused(f"{where}: {list(asked)} is not a range; write [low, high] in {variable.unit}")
