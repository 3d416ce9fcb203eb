"""What joining is worth to a hospital: its held-out patients under the public prior, its own training, and the consortium's.

A hospital that trains alone has the same plan, budget and steps, and noise on a sum of its own patients alone. What is measured
is measured patient by patient, so that every number has an interval over patients, and the gain of joining one over the same
patients. It looks at held-out patients without privacy: for a rehearsal, or a hospital's own eyes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch

from braing3n_core import metrics
from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.data.template import template
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.morphometry import measures
from braing3n_core.plan import Categorical, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.settings import Settings
from simulations.federation import federate
from simulations.mechanisms import of_one_site, with_mechanism
from simulations.probe import voxels
from simulations.tstr import People, coded, errors_of, first_scans, tells_apart

Arm = Literal["prior", "alone", "together"]
_SEED: Final = 20_260_003                                    # of generated people, the same for every arm
_MOST: Final = 160                                           # patients of each part of a site
_VOLUMES: Final = ("brain", "ventricles")                    # measured, and left to the model


@dataclass(frozen=True)
class Number:
    """A mean over patients with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One thing measured on one site's held-out patients. `gain` is of together over alone, positive where it is better."""

    site: str
    what: str
    unit: str
    people: int
    arms: Mapping[Arm, Number]
    gain: Number


def compare(settings: Settings, repeats: int, say: Say) -> list[Row]:
    """Every site's rows. Each training is done `repeats` times, with other noise; a patient's numbers are means over them."""
    plan, public = settings.plan, load_prior(settings.plan)
    cohorts = {site.name: cohort_of(settings, site.name, say) for site in plan.sites}
    found: dict[str, dict[Arm, list[Errors]]] = {
        name: {"prior": [_errors(plan, public, public, own)], "alone": [], "together": []} for name, own in cohorts.items()
    }
    for repeat in range(repeats):
        say(f"training {repeat + 1} of {repeats}: all together, then each alone")
        folder = settings.out / "joining" / f"{plan.digest[:12]}-{repeat}"
        together = federate(plan, folder / "together", cohorts, say)
        for name, cohort in cohorts.items():
            alone = federate(by_itself(plan, name), folder / name, {name: cohort}, say)
            found[name]["together"].append(_errors(plan, together, public, cohort))
            found[name]["alone"].append(_errors(plan, alone, public, cohort))
    return [row for name, arms in found.items() for row in _rows(name, arms)]


def by_itself(plan: TrainingPlan, site: str) -> TrainingPlan:
    """The same training by one site of the plan: its budget, and noise on nobody else's sum."""
    alone = plan if plan.privacy.mechanism == "non-private" else with_mechanism(plan, "local")
    return of_one_site(alone, plan.site(site))


Errors = Mapping[tuple[str, str], np.ndarray]                # what, unit -> one number for each held-out patient


def cohort_of(settings: Settings, name: str, say: Say) -> Cohort:
    """One site's patients: real ones, or the phantoms that the plan describes, written first."""
    plan, folder = settings.plan, settings.bids(name)
    if plan.rehearsal is not None:
        write_hospital(folder, plan.site(name), plan)
    cohort = load_cohort(folder, plan, settings.folder(name) / "cache")
    say(f"{name}: {len(cohort.training)} patients train, {len(cohort.held_out)} are held out")
    return cohort


def _errors(plan: TrainingPlan, model: Brain, public: Brain, cohort: Cohort) -> Errors:
    """What one model makes of one site's held-out patients, one number a patient and measure."""
    held_out, training = (first_scans(part, _MOST) for part in (cohort.held_out, cohort.training))
    brain = template(plan.model).mask
    with torch.no_grad():
        rebuilt = model.decode(model.encode(held_out.volumes))
    psnrs = [metrics.psnr(one, other, brain) for one, other in zip(held_out.volumes, rebuilt, strict=True)]
    taught = _taught(plan, model, public, training, held_out)
    return {("reconstruction", "dB"): np.array(psnrs)} | _anatomy(plan, model, held_out) | taught


def _anatomy(plan: TrainingPlan, model: Brain, held_out: People) -> dict[tuple[str, str], np.ndarray]:
    """Volumes of people made with each patient's other conditions, beside the patient's own."""
    asked = [{name: value for name, value in row.items() if name not in _VOLUMES} for row in held_out.conditions]
    made = generate(model, asked, _SEED, steps=plan.release.steps, guidance=plan.release.weights)
    real, seen = (measures(volumes, plan.model) for volumes in (held_out.volumes, made))
    return {(f"{name} of such a person", "ml off"): np.abs(real[f"{name}_ml"] - seen[f"{name}_ml"]) for name in _VOLUMES}


def _taught(
    plan: TrainingPlan, model: Brain, public: Brain, training: People, held_out: People
) -> dict[tuple[str, str], np.ndarray]:
    """Errors of probes of voxels that were fitted to people generated with the training patients' conditions."""
    made = generate(model, training.conditions, _SEED + 1, steps=plan.release.steps, guidance=plan.release.weights)
    features, found = [voxels(public, volumes) for volumes in (made, held_out.volumes)], {}
    for target in public.variables:
        if target.source == "measured" or not tells_apart(target.name, training):
            continue
        known = np.array([row.get(target.name) is not None for row in training.conditions])
        if any(row.get(target.name) is None for row in held_out.conditions):
            continue
        predicted, answers = metrics.ridge(features[0][known], coded(target, training), features[1]), coded(target, held_out)
        unit = "wrong" if isinstance(target, Categorical) else f"{target.unit} off"
        found[f"{target.name}, probe of generated people", unit] = errors_of(target, predicted, answers)
    return found


def _rows(site: str, arms: Mapping[Arm, Sequence[Errors]]) -> Iterator[Row]:
    for what, unit in arms["prior"][0]:
        each = {arm: np.mean([errors[what, unit] for errors in runs], axis=0) for arm, runs in arms.items()}
        better = each["together"] - each["alone"] if unit == "dB" else each["alone"] - each["together"]
        numbers = {arm: _number(values) for arm, values in each.items()}
        yield Row(site, what, unit, len(better), numbers, _number(better))


def _number(values: np.ndarray) -> Number:
    return Number(float(values.mean()), *metrics.bootstrap_interval(values, seed=0))


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for a person."""
    heads = "".join(f"{arm:>26}" for arm in (*get_args(Arm), "gain of joining"))
    yield f"{'site':<10}{'held-out':>8}  {'':<34}{'':<10}{heads}"
    for row in rows:
        cells = "".join(f"{_short(number):>26}" for number in (*(row.arms[arm] for arm in get_args(Arm)), row.gain))
        yield f"{row.site:<10}{row.people:>8}  {row.what:<34}{row.unit:<10}{cells}"
    yield "means with 95 % intervals over patients; gain: together over alone, positive where joining is better"


def _short(number: Number) -> str:
    value, low, high = (round(each, 6) + 0.0 for each in (number.value, number.low, number.high))         # no -5e-18
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def as_json(rows: Sequence[Row]) -> str:
    """The same for programs."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def write(rows: Sequence[Row], out: Path) -> None:
    """The same as a file."""
    write_atomically(out, (as_json(rows) + "\n").encode())
