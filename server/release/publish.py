"""From a trained generator to a release folder: draw candidates, generate, gate, sweep, measure, certify, write.

Nothing publishable is written before every gate is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from braing3n_core.census import Shares
from braing3n_core.errors import WaitingForSites
from braing3n_core.generate import batch_for, generate, noise_of
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.plan import T1W, Categorical, Continuous, TrainingPlan
from braing3n_core.released import FOLDER as GENERATOR
from server.fit import Reading
from server.release import gates
from server.release.accounts import Sealed, account
from server.release.anatomy import examine
from server.release.bundle import bundle_files
from server.release.candidates import candidates, volumes_of
from server.release.card import bidsignore
from server.release.census import census_document, followed, refuse_without_census
from server.release.certificate import FILE, PAGE, certificate, page
from server.release.certificate_words import Known
from server.release.cohort import Person
from server.release.dataset import refuse_to_overwrite, write_dataset
from server.release.edition import Edition
from server.release.evidence import GATES_FILE, POLICY_FILE
from server.release.gates import Votes
from server.release.inputs import YEARS, Quality, ReleaseInputs, SitePrivacy, Sweep
from server.release.judge import VENTRICLES, Consortium, is_voted_on, judge
from server.release.mosaic import hero_png
from server.release.numbers import metrics_json
from server.release.policy import Policy
from server.release.report import describe, number, render
from server.release.shown import by_visit
from server.release.tables import BidsType, as_json

Progress = Callable[[str, int, int], None]                   # what, done, total
RELEASE = "release"                                          # the folder's name inside a run
REPORT = "docs/report.html"
PICTURE = "cohort.png"                                       # beside it: the first people of the cohort at a glance
_AT_A_GLANCE = 12                                            # brains on that picture
_STEPS = 7                                                   # pictures of one sweep


@dataclass(frozen=True)
class Reported:
    """Sites that said what they spent and can be asked nothing more."""

    rows: Sequence[SitePrivacy] = ()
    votes: bool = False

    def vote(self, volumes: Tensor, threshold: float) -> Votes:
        """Nobody can be asked."""
        raise WaitingForSites("these sites cannot be asked to vote; ask them by way of their own commands")

    def privacy(self) -> Sequence[SitePrivacy]:
        """As reported."""
        return self.rows

    def ledgers(self) -> Mapping[str, Sealed]:
        """Nobody signs."""
        return {}


@dataclass(frozen=True)
class Extras:
    """What a report shows beside the release, measured by others. `control` is (requested, measured) ventricles, ml."""

    quality: Sequence[Quality] = ()
    rounds: Sequence[Mapping[str, object]] = ()
    fits: Sequence[Reading] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    control: tuple[Sequence[float], Sequence[float]] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # how far a sweep goes; else as the cells ask


def publish(
    plan: TrainingPlan,
    model: Brain,
    out: Path,
    consortium: Consortium,
    edition: Edition,
    *,
    policy: Policy | None = None,
    extras: Extras | None = None,
    kind: BidsType = "derivative",
    replace: bool = False,
    progress: Progress | None = None,
    made: Tensor | None = None,
    with_generator: bool = False,
    census: Shares | None = None,
) -> Path:
    """Make `out`/release and return it; the plan, the model, the sites' answers and the arguments decide everything in it.

    A picture of the first people, cohort.png, is put beside it. Raises GateBlocked if a gate stays closed, naming it, and
    UsageError if there is a release already and `replace` is not asked for; nothing is written then. `made` are the candidates'
    volumes (c, 1, D, H, W), if they exist already (server.release.stages). `with_generator`: the networks too. `census` is what
    the sites told of their patients; WaitingForSites is raised if the release follows it and it is not there.
    """
    refuse_without_census(plan, census)
    policy, extras, folder = policy or Policy.load(), extras or Extras(), out / RELEASE
    gates.refuse_closed([gates.budget(plan, consortium.privacy())])
    refuse_to_overwrite(folder, replace)
    maker = _Maker(plan, model.eval(), progress)
    # 1. Candidates, and which of them the gates leave.
    voted = is_voted_on(plan) and consortium.votes
    pool = candidates(plan.release, plan.variables, policy.rules.copies, voted, followed(plan, census))
    if made is None:
        made = volumes_of(plan, maker.model, pool, maker.saying("generating"))
    judged = judge(plan, policy, consortium, pool, made, extras.control)
    gates.refuse_closed(judged.gates)
    people, volumes = [one.person for one in judged.people], made[[one.index for one in judged.people]]
    # 2. What is said about them.
    inputs = ReleaseInputs(
        plan=plan, people=people, volumes=volumes, age_sweep=maker.sweep("age", extras.ranges.get("age")),
        ventricle_sweep=maker.sweep(VENTRICLES, extras.ranges.get(VENTRICLES)),
        visits=_visits(people, volumes, judged.measured), control=judged.control, panel=extras.quality,
        privacy=consortium.privacy(), rounds=extras.rounds, fits=extras.fits, provenance=extras.provenance, gates=judged.gates,
        edition=edition, findings=judged.findings,
    )  # fmt: skip
    documents = _documents(inputs, policy, consortium.ledgers(), edition, with_generator) | census_document(plan, census)
    if with_generator:
        documents |= bundle_files(plan, model, edition) | {".bidsignore": bidsignore(f"{GENERATOR}/")}
    # 3. The folder.
    brains = [volumes[list(visit.values())][:, 0] for visit in by_visit(people)[:_AT_A_GLANCE]]
    hero_png(brains, out / PICTURE, plan.model, rows=3 if plan.modalities == (T1W,) else 2)
    return write_dataset(
        folder, plan, edition, people, volumes, numbers=[one.number for one in judged.people], kind=kind,
        measured={VENTRICLES: judged.measured}, documents=documents, replace=replace,
    )  # fmt: skip


def _visits(people: Sequence[Person], volumes: Tensor, measured: Sequence[float]) -> Sweep | None:
    """The first person of the release with several visits, as a sweep over years."""
    name = next((person.name for person in people if person.session), None)
    if name is None:
        return None
    mine = [place for place, person in enumerate(people) if person.name == name and person.modality == T1W]
    years, sizes = tuple(people[place].years for place in mine), tuple(measured[place] for place in mine)
    return Sweep(YEARS, "year", years, volumes[mine], sizes, f"{name} at every visit; the years alone differ")


def _documents(
    inputs: ReleaseInputs, policy: Policy, seals: Mapping[str, Sealed], edition: Edition, with_generator: bool
) -> dict[str, bytes]:
    """docs/: what was decided and by which rules, what is promised, and all of it for people."""
    plan, spent = inputs.plan, {row.site: row for row in inputs.privacy}
    accounts = [
        account(plan, site.name, spent[site.name].events if site.name in spent else (),
                spent[site.name].epsilon if site.name in spent else 0.0, seals.get(site.name))
        for site in plan.sites
    ]  # fmt: skip
    quality = [f"{row.name}: {number(row.private, row.unit)} ({row.baseline_name}: {number(row.baseline, row.unit)})"
               for row in inputs.panel]  # fmt: skip
    known = Known(plan, edition, len(inputs.people), policy.digest, accounts, inputs.gates, quality, with_generator)
    stated = certificate(known)
    return {
        POLICY_FILE: policy.raw,
        GATES_FILE: as_json({"verdict": gates.verdict(inputs.gates), "policy": policy.digest,
                             "gates": [gate.as_json() for gate in inputs.gates]}),
        FILE: stated.as_json(),
        PAGE: page(stated).encode(),
        "docs/metrics.json": metrics_json(inputs),
        REPORT: render(inputs).encode(),
    }  # fmt: skip


@dataclass(frozen=True)
class _Maker:
    """A plan's sampler settings around one model."""

    plan: TrainingPlan
    model: Brain
    progress: Progress | None

    def volumes(self, what: str, rows: Sequence[Mapping[str, Condition]], noise: Tensor | None = None) -> Tensor:
        """(n, 1, D, H, W), one volume per row of conditions."""
        release = self.plan.release
        return generate(
            self.model, rows, release.seed, steps=release.steps, guidance=release.weights, noise=noise,
            progress=self.saying(what), batch=batch_for(self.plan.model),
        )  # fmt: skip

    def saying(self, what: str) -> Callable[[int, int], None] | None:
        """How far `what` is, for whoever wants to hear it."""
        progress = self.progress
        return None if progress is None else lambda done, total: progress(what, done, total)

    def sweep(self, name: str, limits: tuple[float, float] | None) -> Sweep | None:
        """One condition in even steps over the noise of the cohort's first person; None if the plan lacks it."""
        swept = next((v for v in self.plan.variables if v.name == name and isinstance(v, Continuous)), None)
        if not isinstance(swept, Continuous):
            return None
        low, high = limits or _asked(self.plan, swept)
        values = tuple(round(float(value), 1) for value in np.linspace(low, high, _STEPS))
        held = _held(self.plan, name)
        noise = noise_of(self.model, self.plan.release.seed, 1).expand(_STEPS, -1, -1)
        volumes = self.volumes(f"{name} sweep", [held | {name: value} for value in values], noise)
        words = f"the noise of image 1; {describe(held, self.plan)}; everything else left free"
        measured = tuple(examine(volume, self.plan.model).ventricles_ml for volume in volumes)
        return Sweep(name, swept.unit, values, volumes, measured, words)


def _held(plan: TrainingPlan, swept: str) -> dict[str, Condition]:
    """What a sweep holds: every category at its first level, and age in the middle of what was asked unless age is swept."""
    held: dict[str, Condition] = {v.name: v.levels[0] for v in plan.variables if isinstance(v, Categorical)}
    for variable in plan.variables:
        if isinstance(variable, Continuous) and variable.name == "age" != swept:
            held["age"] = float(round(sum(_asked(plan, variable)) / 2))
    return held


def _asked(plan: TrainingPlan, variable: Continuous) -> tuple[float, float]:
    """The widest range that the release's cells ask for, or the variable's own."""
    cells = [cell.conditions[variable.name] for cell in plan.release.cells if variable.name in cell.conditions]
    edges = [float(edge) for cell in cells for edge in cell]
    low, high = min(edges, default=variable.low), max(edges, default=variable.high)
    return (low, high) if low < high else (variable.low, variable.high)
