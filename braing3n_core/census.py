"""The census: which ages and diagnoses there are, as the sites may tell it, and people drawn like that.

Bins come from the plan alone: equal parts of a continuous variable's range, the levels of a categorical one, and at the end of
each a bin for "not known". What the server makes of the sites' noisy counts is post-processing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.models.brain import Condition
from braing3n_core.plan import Categorical, Census, Continuous, TrainingPlan

Variable = Continuous | Categorical
Shares = Mapping[str, tuple[float, ...]]                     # variable -> shares of its known bins, which add up to 1
_DECIMALS = 2


def census_of(plan: TrainingPlan) -> Census:
    """What the plan says of its census. Raises PlanRefused if it takes none."""
    if plan.census is None:
        raise PlanRefused("the plan takes no census; agree on a [census] table first")
    return plan.census


def counted_variables(plan: TrainingPlan) -> list[Variable]:
    """The variables that are counted, in the plan's order."""
    asked = census_of(plan).variables
    return [variable for variable in plan.variables if not asked or variable.name in asked]


def sizes(plan: TrainingPlan) -> tuple[int, ...]:
    """Bins of each counted variable, "not known" included."""
    return tuple(len(_edges(variable, census_of(plan).bins)) for variable in counted_variables(plan))


def row_of(conditions: Mapping[str, Condition], plan: TrainingPlan) -> tuple[int, ...]:
    """The bin of one patient in each counted variable; the last is for what is not known, or is outside the plan's range."""
    return tuple(_place(variable, census_of(plan).bins, conditions.get(variable.name)) for variable in counted_variables(plan))


def pooled(plan: TrainingPlan, told: Mapping[str, Sequence[int]]) -> dict[str, tuple[float, ...]]:
    """Each variable's shares from the noisy counts of the sites: added up, clamped at 0, "not known" left out, normalised.

    A variable of which noise left nothing has no entry: it stays as free as without a census. Raises IntegrityError if a site
    told another number of counts than the plan has bins.
    """
    for site, counts in told.items():
        if not len(counts) == sum(sizes(plan)):
            raise IntegrityError(f"the census of {site} has {len(counts)} counts and the plan {sum(sizes(plan))}; ask it again")
    total = np.array([list(counts) for counts in told.values()], np.float64).sum(0)            # (bins of all variables,)
    ends = np.cumsum([0, *sizes(plan)]).tolist()
    shares = {}
    for variable, (start, end) in zip(counted_variables(plan), pairwise(ends), strict=True):
        known = np.clip(total[start : end - 1], 0, None)
        if known.sum() > 0:
            shares[variable.name] = tuple((known / known.sum()).tolist())
    return shares


def drawn(variable: Variable, shares: Sequence[float], part: float) -> Condition:
    """The value at `part` (0 to 1) of the variable's distribution: a level, or a number, uniform inside its bin."""
    ends = list(accumulate(shares))
    reached = part * ends[-1]
    place = min(bisect_right(ends, reached), len(shares) - 1)
    if isinstance(variable, Categorical):
        return variable.levels[place]
    inside = (reached - (ends[place] - shares[place])) / shares[place]
    width = (variable.high - variable.low) / len(shares)
    return min(max(round(variable.low + width * (place + inside), _DECIMALS), variable.low), variable.high)


def _edges(variable: Variable, bins: int) -> Sequence[object]:
    """One entry for each bin, "not known" the last."""
    return [*variable.levels, None] if isinstance(variable, Categorical) else [None] * (bins + 1)


def _place(variable: Variable, bins: int, value: Condition) -> int:
    match variable, value:
        case Categorical(), str() if value in variable.levels:
            return variable.levels.index(value)
        case Continuous(), float() | int() if variable.low <= value <= variable.high:
            return min(int(bins * (value - variable.low) / (variable.high - variable.low)), bins - 1)
        case _:
            return len(_edges(variable, bins)) - 1
