"""One point of the frontier: a whole federation in one process, measured on held-out patients of its scene.

At a private point the step is attacked with canaries at the point's own epsilon. A row has the plan's digest, the noise that
the plan predicts and every score, so that rows of other days and machines can join it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.flower_process import Say
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from server.plan_check import check
from simulations.audit import attacked
from simulations.federation import federate
from simulations.frontier.points import POOLED, Point
from simulations.quality import Reference, reference_of, scores_of
from simulations.tstr import People, first_scans
from simulations.tstr import Row as Taught
from simulations.tstr import rows as rows_of

Row = dict[str, Any]                                         # JSON
_PROBED = 160                                                # most people that a probe is fitted to, and tested on


@dataclass(frozen=True)
class Scene:
    """The patients of one consortium and repeat, and what every arm is held against."""

    cohorts: Mapping[str, Cohort]
    public: Brain
    reference: Reference
    people: tuple[People, People]                            # training and held-out


@dataclass(frozen=True)
class Known:
    """What the rows of one scene say of other arms than their own."""

    prior: Mapping[str, float]                               # its scores
    probes: Mapping[str, Mapping[str, float]]                # target -> errors of knowing nobody, and of as many real people


def scene_of(plan: TrainingPlan, out: Path, say: Say) -> Scene:
    """The scene of `plan`, a consortium's: its phantoms are made once, below `out`, and their cohorts lie in a cache there.

    Two processes may read one scene at a time, but not make it.
    """
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
    people = first_scans(training, _PROBED), first_scans(held_out, _PROBED)
    return Scene(cohorts, public, reference_of(plan, public, held_out), people)


def known_of(plan: TrainingPlan, scene: Scene, say: Say) -> Known:
    """Scores of the prior on the scene of `plan`, and of probes that no model taught."""
    taught = _taught(plan, scene.public, scene, say)
    prior = asdict(scores_of(plan, scene.public, scene.public, scene.reference)) | {row.target: row.made for row in taught}
    return Known(prior, {row.target: {"nothing": row.nothing, "real": row.real} for row in taught})


def row_of(plan: TrainingPlan, point: Point, scene: Scene, known: Known, out: Path, say: Say) -> Row:
    """Train `plan`, the point's own, below `out` and measure it. What is unfinished there is taken up."""
    began, expected = time.monotonic(), check(plan)          # which may refuse it
    folder = out / "runs" / f"{plan.digest[:12]}-{point.repeat}"
    model = federate(plan, folder, _pooled(scene.cohorts) if point.mechanism == "pooled" else scene.cohorts, say)
    taught = _taught(plan, model, scene, say)
    scores = asdict(scores_of(plan, model, scene.public, scene.reference)) | {row.target: row.made for row in taught}
    row = {
        "study": plan.study, "plan": plan.digest, "seed": plan.seed, "repeat": point.repeat,
        "mechanism": point.mechanism, "epsilon": point.epsilon, "spent": expected.epsilon,
        "sites": point.consortium.sites, "patients": point.consortium.patients,
        "stages": {stage.stage: {"trainable": stage.trainable, "weights": stage.weights, "noise_over_clip": stage.pooled}
                   for stage in expected.stages},
        "prior": known.prior, "scores": scores, "probes": known.probes,
        "ageing_of_patients": scene.reference.ageing, "audit": _attacked(plan) if point.epsilon < math.inf else {},
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    row |= {"change": point.change} if point.change else {}
    return row | {name: "infinite" for name in ("epsilon", "spent") if row[name] == math.inf}


def _attacked(plan: TrainingPlan) -> dict[str, Any]:
    """Stage -> claimed and measured epsilon of its steps, calibrated as if the whole budget were its own."""
    found = {stage.name: attacked(plan, stage, plan.privacy.epsilon, plan.privacy.delta) for stage in plan.stages}
    return {stage: asdict(audit) | {"refuted": audit.refuted} for stage, audit in found.items()}


def _pooled(cohorts: Mapping[str, Cohort]) -> dict[str, Cohort]:
    """One cohort of everybody, each name with its site's before it."""
    named = [(f"{site}/{one.participant}", one) for site, cohort in cohorts.items() for one in cohort.patients]
    return {POOLED: Cohort(tuple(replace(one, participant=name) for name, one in named), ())}


def _taught(plan: TrainingPlan, model: Brain, scene: Scene, say: Say) -> list[Taught]:
    """What generated people teach probes of voxels about the held-out, every target that varies enough."""
    arms, release = {"generated": model}, plan.release
    found = rows_of(arms, scene.public, *scene.people, release.steps, release.weights, say)
    return [row for row in found if row.features == "voxels"]
