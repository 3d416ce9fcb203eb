"""Utility against epsilon: one recipe under many budgets, mechanisms and consortia, on the same phantom patients.

Every point is a whole federation in one process, measured on patients held out from training, and its step is attacked with
canaries at its own epsilon. The table holds one row a run: the plan's digest, the noise that the plan predicts and every score,
so that rows of other days and machines can join it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from simulations.audit import attacked
from simulations.federation import federate
from simulations.mechanisms import of_one_site, with_mechanism
from simulations.quality import Reference, reference_of, scores_of
from simulations.tstr import People, first_scans
from simulations.tstr import Row as Taught
from simulations.tstr import rows as rows_of

TABLE = "frontier.json"
MEASURES = ("distance", "frechet", "coverage", "ageing", "age", "reconstruction")           # "age": of simulations.tstr
Kind = Mechanism | Literal["pooled"]                         # pooled: everybody in one place, without privacy
_POOLED = "pooled"
_PROBED = 160                                                # most people that a probe is fitted to, and tested on


@dataclass(frozen=True)
class Consortium:
    """How many hospitals, and how many patients each declares."""

    sites: int
    patients: int


@dataclass(frozen=True)
class Point:
    """One run: infinite epsilon is training without privacy, whatever the mechanism. A repeat has patients of its own."""

    consortium: Consortium
    mechanism: Kind
    epsilon: float
    repeat: int


def asked(sites: str, patients: str, mechanisms: str, epsilons: str, repeats: int) -> list[Point]:
    """The points of a command line, lists with commas between. Raises UsageError."""
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
    """The recipe at this point: its hospitals in turn; every repeat counts the seed up, so its patients are others."""
    plan = base_of(base, point.consortium, point.repeat)
    epsilon = point.epsilon if point.epsilon < math.inf else plan.privacy.epsilon
    privacy = plan.privacy.model_copy(update={"epsilon": epsilon, "vote_epsilon": 0.0, "fit_share": 0.0})  # all of it trains
    plan = plan.but(privacy=privacy)
    return in_one_place(plan) if point.mechanism == "pooled" else with_mechanism(plan, point.mechanism)


def in_one_place(plan: TrainingPlan) -> TrainingPlan:
    """The same training without privacy, of all sites' patients at a single one."""
    everybody = Site(name=_POOLED, patients=sum(site.patients for site in plan.sites))
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
    people: tuple[People, People]                            # training and held-out
    prior: dict[str, float]
    nothing_and_real: dict[str, dict[str, float]]            # target -> errors of knowing nobody, and of as many real people


def _scene(plan: TrainingPlan, out: Path, say: Say) -> _Scene:
    name = f"{len(plan.sites)}x{plan.sites[0].patients}-{plan.seed}"
    cohorts = {}
    for site in plan.sites:
        say(f"phantoms of {site.name}, {site.patients} patients")
        folder = out / "hospitals" / name / site.name
        write_hospital(folder, site, plan)
        cohorts[site.name] = load_cohort(folder, plan, out / "cache" / name)
    public = load_prior(plan)
    training = [patient for cohort in cohorts.values() for patient in cohort.training]
    held_out = [patient for cohort in cohorts.values() for patient in cohort.held_out]
    reference = reference_of(plan, public, held_out)
    people = first_scans(training, _PROBED), first_scans(held_out, _PROBED)
    taught = _taught(plan, public, public, people, say)
    prior = asdict(scores_of(plan, public, public, reference)) | {row.target: row.made for row in taught}
    known = {row.target: {"nothing": row.nothing, "real": row.real} for row in taught}
    return _Scene(name, cohorts, public, reference, people, prior, known)


def _row(plan: TrainingPlan, point: Point, scene: _Scene, out: Path, say: Say) -> dict[str, Any]:
    began = time.monotonic()
    folder = out / "runs" / f"{plan.digest[:12]}-{point.repeat}"
    model = federate(plan, folder, _pooled(scene.cohorts) if point.mechanism == "pooled" else scene.cohorts, say)
    taught = _taught(plan, model, scene.public, scene.people, say)
    scores = asdict(scores_of(plan, model, scene.public, scene.reference)) | {row.target: row.made for row in taught}
    expected = check(plan)
    row = {
        "study": plan.study, "plan": plan.digest, "seed": plan.seed, "repeat": point.repeat,
        "mechanism": point.mechanism, "epsilon": point.epsilon, "spent": expected.epsilon,
        "sites": point.consortium.sites, "patients": point.consortium.patients,
        "stages": {stage.stage: {"trainable": stage.trainable, "weights": stage.weights, "noise_over_clip": stage.pooled}
                   for stage in expected.stages},
        "prior": scene.prior, "scores": scores, "probes": scene.nothing_and_real,
        "ageing_of_patients": scene.reference.ageing, "audit": _attacked(plan) if point.epsilon < math.inf else {},
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    return row | {name: "infinite" for name in ("epsilon", "spent") if row[name] == math.inf}


def _attacked(plan: TrainingPlan) -> dict[str, Any]:
    """Stage -> claimed and measured epsilon of its steps, calibrated as if the whole budget were its own."""
    found = {stage.name: attacked(plan, stage, plan.privacy.epsilon, plan.privacy.delta) for stage in plan.stages}
    return {stage: asdict(audit) | {"refuted": audit.refuted} for stage, audit in found.items()}


def _pooled(cohorts: Mapping[str, Cohort]) -> dict[str, Cohort]:
    """One cohort of everybody, each name with its site's before it."""
    named = [(f"{site}/{one.participant}", one) for site, cohort in cohorts.items() for one in cohort.patients]
    return {_POOLED: Cohort(tuple(replace(one, participant=name) for name, one in named), ())}


def _taught(plan: TrainingPlan, model: Brain, public: Brain, people: tuple[People, People], say: Say) -> list[Taught]:
    """What generated people teach probes of voxels about the held-out, every target that varies enough."""
    found = rows_of({"generated": model}, public, *people, plan.release.steps, plan.release.weights, say)
    return [row for row in found if row.features == "voxels"]


def gains(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Each other row with the share of non-private federated training's gain over the prior that it reaches, by measure.

    Measures that non-private training does not improve have no share and are left out.
    """
    free = {_key(row): row for row in rows if row["mechanism"] == "non-private"}
    for row in rows:
        if row["mechanism"] != "non-private" and _key(row) in free:
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
