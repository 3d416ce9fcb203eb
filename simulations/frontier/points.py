"""The points of a frontier, the plan of each, and what the rows of its table say of a gain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from braing3n_core.budget import Mechanism
from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.plan import Hospital, Site, TrainingPlan
from simulations.frontier.changes import changed
from simulations.mechanisms import of_one_site, with_mechanism

MEASURES = ("distance", "frechet", "coverage", "ageing", "age", "reconstruction")           # "age": of simulations.tstr
Kind = Mechanism | Literal["pooled"]                         # pooled: everybody in one place, without privacy
POOLED = "pooled"                                            # its only site


@dataclass(frozen=True)
class Consortium:
    """How many hospitals, and how many patients each declares."""

    sites: int
    patients: int

    def __str__(self) -> str:
        """For a person."""
        return f"{self.sites} x {self.patients}"


@dataclass(frozen=True)
class Point:
    """One run: infinite epsilon is training without privacy, whatever the mechanism. A repeat has patients of its own.

    `change` is what a search changes of the recipe, as TOML; the recipe itself has none.
    """

    consortium: Consortium
    mechanism: Kind
    epsilon: float
    repeat: int
    change: str = ""

    def __str__(self) -> str:
        """For a person."""
        budget = f", epsilon {self.epsilon:g}" if self.epsilon < math.inf else ""
        change = f", {self.change}" if self.change else ""
        return f"{self.mechanism}{budget}, {self.consortium}, repeat {self.repeat}{change}"


def asked(
    sites: str, patients: str, mechanisms: str, epsilons: str, repeats: int, changes: Sequence[str] = ()
) -> list[Point]:
    """The points of a command line, lists with commas between, and those of each change. Raises UsageError."""
    kinds: list[Kind] = []
    for word in mechanisms.split(","):
        match word.strip():
            case "local" | "secure-sum" | "pooled" as kind:
                kinds.append(kind)
            case unknown:
                raise UsageError(
                    f"--mechanism {unknown}: known are local, secure-sum and pooled; federated without privacy is --epsilon inf"
                )
    many, declared, budgets = numbers("sites", sites), numbers("patients", patients), numbers("epsilon", epsilons)
    for name, values in (("sites", many), ("patients", declared)):
        if not all(value.is_integer() for value in values):
            raise UsageError(f"--{name} {sites if name == 'sites' else patients}: whole numbers are needed")
    found = points([int(n) for n in many], [int(n) for n in declared], kinds, budgets, repeats)
    scenes = [list(scene) for _, scene in itertools.groupby(found, key=lambda point: (point.consortium, point.repeat))]
    # Scene by scene, so that each is made once.
    return [replace(point, change=change) for scene in scenes for change in ("", *changes) for point in scene]


def numbers(name: str, words: str) -> list[float]:
    """The numbers of an option, commas between. Raises UsageError naming it."""
    try:
        values = [float(word) for word in words.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(value > 0 for value in values):
        raise UsageError(f"--{name} {words}: write numbers above zero with commas between, for example 1,3,8")
    return values


def points(
    sites: Sequence[int], patients: Sequence[int], mechanisms: Sequence[Kind], epsilons: Sequence[float], repeats: int
) -> list[Point]:
    """Every combination, training without privacy once a consortium and repeat, consortium by consortium."""
    found: list[Point] = []
    private = [kind for kind in mechanisms if kind != "pooled"]
    finite = [epsilon for epsilon in epsilons if epsilon < math.inf]
    for many, declared, repeat in itertools.product(sites, patients, range(repeats)):
        free: list[Kind] = ["non-private"] if math.inf in epsilons else []
        free += ["pooled"] if "pooled" in mechanisms else []
        found += [Point(Consortium(many, declared), kind, math.inf, repeat) for kind in free]
        found += [Point(Consortium(many, declared), *both, repeat) for both in itertools.product(private, finite)]
    return found


def plan_of(base: TrainingPlan, point: Point) -> TrainingPlan:
    """The recipe at this point: its hospitals in turn; every repeat counts the seed up, so its patients are others.

    Raises what `changed` and `base_of` raise.
    """
    if point.change:
        base = changed(with_mechanism(base, "local"), point.change)         # a secure sum holds no two steps together
    plan = base_of(base, point.consortium, point.repeat)
    epsilon = point.epsilon if point.epsilon < math.inf else plan.privacy.epsilon
    privacy = plan.privacy.model_copy(update={"epsilon": epsilon, "vote_epsilon": 0.0, "fit_share": 0.0})  # all of it trains
    plan = plan.but(privacy=privacy)
    return in_one_place(plan) if point.mechanism == "pooled" else with_mechanism(plan, point.mechanism)


def in_one_place(plan: TrainingPlan) -> TrainingPlan:
    """The same training without privacy, of all sites' patients at a single one."""
    everybody = Site(name=POOLED, patients=sum(site.patients for site in plan.sites))
    return of_one_site(with_mechanism(plan, "non-private"), everybody)


def base_of(base: TrainingPlan, consortium: Consortium, repeat: int) -> TrainingPlan:
    """The recipe's plan under `local`, for so many hospitals of so many patients. Raises PlanRefused without phantoms."""
    if base.rehearsal is None:
        raise PlanRefused("a frontier is measured on phantoms; take a recipe with a [rehearsal] table")
    kinds = base.rehearsal.hospitals or (Hospital(name="site-a"),)
    names = [f"site-{number + 1:02d}" for number in range(consortium.sites)]
    hospitals = [kinds[i % len(kinds)].model_copy(update={"name": name}) for i, name in enumerate(names)]
    quorum = min(base.federation.quorum, consortium.sites)
    return with_mechanism(base, "local").but(                # what a secure sum states of its sites does not hold for others
        seed=base.seed + repeat,
        sites=[Site(name=name, patients=consortium.patients) for name in names],
        federation=base.federation.model_copy(update={"quorum": quorum}),
        rehearsal=base.rehearsal.model_copy(update={"hospitals": tuple(hospitals)}),
    )


def gains(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Each other row with the share that it reaches of what the recipe gains over the prior without privacy, by measure.

    Measures that the recipe does not improve without privacy have no share and are left out.
    """
    free = {_key(row): row for row in rows if row["mechanism"] == "non-private" and not row.get("change")}
    for row in rows:
        if _key(row) in free and row is not free[_key(row)]:
            yield row, _shares(row, free[_key(row)])


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["study"], row["seed"], row["sites"], row["patients"], row["repeat"]


def _shares(row: Mapping[str, Any], free: Mapping[str, Any]) -> dict[str, float]:
    """How much of the gain of `free` over the prior `row` has, by measure."""
    found = {}
    for name in MEASURES:
        if not all(name in one for one in (row["prior"], row["scores"], free["scores"])):      # rows of other days
            continue
        prior, private, best = (_loss(name, one, row) for one in (row["prior"], row["scores"], free["scores"]))
        if best < prior:
            found[name] = (prior - private) / (prior - best)
    return found


def _loss(name: str, scores: Mapping[str, float], row: Mapping[str, Any]) -> float:
    """How far from what is wanted: lower is better whatever the measure."""
    if name == "ageing":
        return abs(scores[name] - float(row["ageing_of_patients"]))
    return -scores[name] if name in ("coverage", "reconstruction") else scores[name]
