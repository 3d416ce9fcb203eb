"""Utility against epsilon: one recipe under many budgets, mechanisms and consortia, on the same phantom patients.

Every point is a whole federation in one process, measured on patients held out from training. The table holds one row a run:
the plan's digest, the noise that the plan predicts and every score, so that rows of other days and machines can join it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from braing3n_core.budget import Mechanism
from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Hospital, Site, TrainingPlan
from braing3n_core.prior import load_prior
from server.plan_check import check
from simulations.federation import federate
from simulations.mechanisms import with_mechanism
from simulations.quality import Reference, Scores, reference_of, scores_of

TABLE = "frontier.json"
MEASURES = ("distance", "frechet", "coverage", "ageing", "reconstruction")                  # of simulations.quality.Scores


@dataclass(frozen=True)
class Consortium:
    """How many hospitals, and how many patients each declares."""

    sites: int
    patients: int


@dataclass(frozen=True)
class Point:
    """One run: infinite epsilon is training without privacy, whatever the mechanism. A repeat has patients of its own."""

    consortium: Consortium
    mechanism: Mechanism
    epsilon: float
    repeat: int


def asked(sites: str, patients: str, mechanisms: str, epsilons: str, repeats: int) -> list[Point]:
    """The points of a command line, lists with commas between. Raises UsageError."""
    kinds: list[Mechanism] = []
    for word in mechanisms.split(","):
        match word.strip():
            case "local" | "secure-sum" as kind:
                kinds.append(kind)
            case unknown:
                raise UsageError(f"--mechanism {unknown}: known are local and secure-sum; without privacy is --epsilon inf")
    many, declared, budgets = numbers("sites", sites), numbers("patients", patients), numbers("epsilon", epsilons)
    for name, values in (("sites", many), ("patients", declared)):
        if not all(value.is_integer() for value in values):
            raise UsageError(f"--{name} {sites if name == 'sites' else patients}: whole numbers are needed")
    return points([int(n) for n in many], [int(n) for n in declared], kinds, budgets, repeats)


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
    sites: Sequence[int], patients: Sequence[int], mechanisms: Sequence[Mechanism], epsilons: Sequence[float], repeats: int
) -> list[Point]:
    """Every combination, training without privacy once a consortium and repeat, consortium by consortium."""
    found: list[Point] = []
    for many, declared, repeat in itertools.product(sites, patients, range(repeats)):
        if math.inf in epsilons:
            found.append(Point(Consortium(many, declared), "non-private", math.inf, repeat))
        finite = [epsilon for epsilon in epsilons if epsilon < math.inf]
        found += [Point(Consortium(many, declared), *both, repeat) for both in itertools.product(mechanisms, finite)]
    return found


def plan_of(base: TrainingPlan, point: Point) -> TrainingPlan:
    """The recipe at this point: its hospitals in turn; every repeat counts the seed up, so its patients are others."""
    plan = base_of(base, point.consortium, point.repeat)
    epsilon = plan.privacy.epsilon if point.mechanism == "non-private" else point.epsilon
    privacy = plan.privacy.model_copy(update={"epsilon": epsilon, "vote_epsilon": 0.0, "fit_share": 0.0})  # all of it trains
    return with_mechanism(plan.but(privacy=privacy), point.mechanism)


def base_of(base: TrainingPlan, consortium: Consortium, repeat: int) -> TrainingPlan:
    """The recipe's plan for so many hospitals of so many patients. Raises PlanRefused if it has no phantom hospitals."""
    if base.rehearsal is None:
        raise PlanRefused("a frontier is measured on phantoms; take a recipe with a [rehearsal] table")
    kinds = base.rehearsal.hospitals or (Hospital(name="site-a"),)
    names = [f"site-{number + 1:02d}" for number in range(consortium.sites)]
    hospitals = [kinds[i % len(kinds)].model_copy(update={"name": name}) for i, name in enumerate(names)]
    quorum = min(base.federation.quorum, consortium.sites)
    return base.but(
        seed=base.seed + repeat,
        sites=[Site(name=name, patients=consortium.patients) for name in names],
        federation=base.federation.model_copy(update={"quorum": quorum}),
        rehearsal=base.rehearsal.model_copy(update={"hospitals": tuple(hospitals)}),
    )


def run(base: TrainingPlan, wanted: Sequence[Point], out: Path, say: Say) -> list[dict[str, Any]]:
    """Every point that out/frontier.json does not hold yet; all rows of it. Stopping loses the point that is being made."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads((out / TABLE).read_text(encoding="utf-8")) if (out / TABLE).exists() else []
    done = {(row["plan"], row["repeat"]) for row in rows}
    plans = {point: plan_of(base, point) for point in wanted}
    missing = [point for point in wanted if (plans[point].digest, point.repeat) not in done]
    started = time.monotonic()
    for (consortium, repeat), group in itertools.groupby(missing, key=lambda point: (point.consortium, point.repeat)):
        scene = _scene(base_of(base, consortium, repeat), out, say)
        for point in group:
            rows.append(_row(plans[point], point, scene, out, say))
            write_atomically(out / TABLE, (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())
            made = missing.index(point) + 1
            left = (time.monotonic() - started) / made * (len(missing) - made) / 60
            say(f"{made} of {len(missing)} points done, the rest takes about {left:.0f} min")
    return rows


@dataclass(frozen=True)
class _Scene:
    """What the points of one consortium and repeat share."""

    name: str
    cohorts: Mapping[str, Cohort]
    public: Brain
    reference: Reference
    prior: Scores


def _scene(plan: TrainingPlan, out: Path, say: Say) -> _Scene:
    name = f"{len(plan.sites)}x{plan.sites[0].patients}-{plan.seed}"
    cohorts = {}
    for site in plan.sites:
        say(f"phantoms of {site.name}, {site.patients} patients")
        folder = out / "hospitals" / name / site.name
        write_hospital(folder, site, plan)
        cohorts[site.name] = load_cohort(folder, plan, out / "cache" / name)
    public = load_prior(plan)
    reference = reference_of(plan, public, [patient for cohort in cohorts.values() for patient in cohort.held_out])
    return _Scene(name, cohorts, public, reference, scores_of(plan, public, public, reference))


def _row(plan: TrainingPlan, point: Point, scene: _Scene, out: Path, say: Say) -> dict[str, Any]:
    began = time.monotonic()
    folder = out / "runs" / f"{plan.digest[:12]}-{point.repeat}"
    model = federate(plan, folder, scene.cohorts, say)
    expected = check(plan)
    row = {
        "study": plan.study, "plan": plan.digest, "seed": plan.seed, "repeat": point.repeat,
        "mechanism": point.mechanism, "epsilon": point.epsilon, "spent": expected.epsilon,
        "sites": point.consortium.sites, "patients": point.consortium.patients,
        "stages": {stage.stage: {"trainable": stage.trainable, "weights": stage.weights, "noise_over_clip": stage.pooled}
                   for stage in expected.stages},
        "prior": asdict(scene.prior), "scores": asdict(scores_of(plan, model, scene.public, scene.reference)),
        "ageing_of_patients": scene.reference.ageing, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    return row | {name: "infinite" for name in ("epsilon", "spent") if row[name] == math.inf}


def gains(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Each private row with the share of non-private training's gain over the prior that it reaches, by measure.

    Measures that non-private training does not improve have no share and are left out.
    """
    free = {_key(row): row for row in rows if row["mechanism"] == "non-private"}
    for row in rows:
        if row["mechanism"] != "non-private" and _key(row) in free:
            yield row, _shares(row, free[_key(row)])


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["study"], row["seed"], row["sites"], row["patients"], row["repeat"]


def _shares(row: Mapping[str, Any], free: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name in MEASURES:
        prior, private, best = (_loss(name, one, row) for one in (row["prior"], row["scores"], free["scores"]))
        if best < prior:
            found[name] = (prior - private) / (prior - best)
    return found


def _loss(name: str, scores: Mapping[str, float], row: Mapping[str, Any]) -> float:
    """How far from what is wanted: lower is better whatever the measure."""
    if name == "ageing":
        return abs(scores[name] - float(row["ageing_of_patients"]))
    return -scores[name] if name in ("coverage", "reconstruction") else scores[name]
