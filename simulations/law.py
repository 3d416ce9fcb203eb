"""The utility law held against noise: what rounds of the shipped road add to a run's mean gradient, beside the closed form.

Nobody is in the cohorts, so all that comes out of a round is its noise: calibrated by the accountant for the plan, drawn,
added, summed and averaged as in any run (client/local_round.py). Norms are in clipping bounds, for all sites' patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from braing3n_core import figures
from braing3n_core.budget import Mechanism
from braing3n_core.charges import Charge, charges, terms
from braing3n_core.law import mu, noise_over_clip
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import begin_stage, initial_values
from client.local_round import noisy_numbers, train_round
from privacy.dp_sgd import trainable
from privacy.events import NonPrivate, SampledGaussian, SecureSummed
from privacy.randomness import SecretNoise
from simulations.frontier.points import Consortium, base_of
from simulations.mechanisms import with_mechanism

Say = Callable[[str], None]
LOW, HIGH = 0.96, {"everybody": 1.04, "sums": 1.2, "sampled": 1.2}                             # tolerated: measured over law
_LOOKS = {
    "everybody": ("local, everybody in every step", "#0072b2", "o"),
    "sums": ("secure sums", "#d55e00", "s"),
    "sampled": ("sampled steps", "#009e73", "^"),
    "none": ("sampled, little noise: no claim", "#8a929e", "x"),
}
_LOUD = 2.0                                                  # noise multiplier from which sampled steps follow the law


@dataclass(frozen=True)
class Case:
    """One plan. `trainable` of `stage`; every site has `patients`; `steps` in all, each with `rate` of them."""

    mechanism: Mechanism
    stage: str
    trainable: str
    consortium: Consortium
    epsilon: float
    rate: float = 1.0
    steps: int = 4


@dataclass(frozen=True)
class Row:
    """What came out. `measured`: root mean square over `runs`; `unsure`: its standard deviation, relative, by chance alone."""

    case: Case
    weights: int
    multiplier: float                                        # noise of one step over the clipping bound
    runs: int
    law: float
    measured: float
    unsure: float

    @property
    def ratio(self) -> float:
        """Measured over law."""
        return self.measured / self.law

    @property
    def kind(self) -> str:
        """Which tolerance is stated for it; "none": sampled steps of little noise, which the law leaves out."""
        if self.case.rate < 1 and self.multiplier < _LOUD:
            return "none"
        return "sampled" if self.case.rate < 1 else "sums" if self.case.mechanism == "secure-sum" else "everybody"

    @property
    def within(self) -> bool | None:
        """Whether the ratio is tolerated, three deviations of chance allowed for; None where the law makes no claim."""
        if self.kind == "none":
            return None
        chance = 3 * self.unsure
        return LOW - chance <= self.ratio <= HIGH[self.kind] + chance


def cases() -> Iterator[Case]:
    """One thing varied at a time around 256 weights, 3 x 100 patients, epsilon 3, everybody in each of four steps."""
    usual = Consortium(3, 100)
    learned = ("generator", "group:population")
    for kind in ("local", "secure-sum"):
        for what in (("decoder", "group:style"), learned, ("generator", "group:conditions")):
            yield Case(kind, *what, usual, 3.0)
        yield from (Case(kind, *learned, usual, epsilon) for epsilon in (1.0, 8.0))
        yield from (Case(kind, *learned, Consortium(3, patients), 3.0) for patients in (300, 1000))
        yield Case(kind, *learned, Consortium(10, 100), 3.0)
        yield Case(kind, *learned, usual, 3.0, 0.25, 100)
    yield Case("local", "generator", "all", usual, 3.0)
    yield Case("local", *learned, usual, 8.0, 0.1, 8)


def measure(base: TrainingPlan, asked: Sequence[Case], runs: int, say: Say) -> list[Row]:
    """Every case, `runs` times. Takes a plan with phantom hospitals for the sizes that a case leaves open."""
    found = []
    for case in asked:
        sites, patients = case.consortium.sites, case.consortium.patients
        say(f"{case.mechanism}, {case.trainable}, {sites} x {patients}, epsilon {case.epsilon:g}")
        found.append(_row(load_prior(base), plan_of(base, case), case, runs))
    return found


def plan_of(base: TrainingPlan, case: Case) -> TrainingPlan:
    """One stage in one round of all steps, for a secure sum a round a step; the learning rate is 1: a round is its sum."""
    stage = base.stage(case.stage)
    changes = {"trainable": case.trainable, "learns": "flow", "rounds": 1, "local_steps": case.steps, "sample_rate": case.rate,
               "learning_rate": 1.0, "momentum": 0.0, "share": 1.0}  # fmt: skip
    plan = base_of(base, case.consortium, 0)
    privacy = plan.privacy.model_copy(update={"epsilon": case.epsilon, "vote_epsilon": 0.0, "fit_share": 0.0})
    return with_mechanism(plan.but(stages=(stage.model_copy(update=changes),), privacy=privacy), case.mechanism)


def _row(public: Brain, plan: TrainingPlan, case: Case, runs: int) -> Row:
    (stage,), sizes = plan.stages, [len(values) for values in initial_values(public, plan)]
    (weights,), event = sizes, charges(plan, sizes)[stage.name]
    begin_stage(public, plan, stage.name)
    squares = [float(np.square(_noise(public, stage, plan, event) / stage.clip).sum()) for _ in range(runs)]
    sites, patients = case.consortium.sites, case.consortium.patients
    law = noise_over_clip(case.mechanism, weights, sites, patients, mu(case.epsilon, plan.privacy.delta))
    chance = 1 / math.sqrt(2 * weights * runs)
    return Row(case, weights, _multiplier(event), runs, law, math.sqrt(float(np.mean(squares))), chance)


def _multiplier(event: Charge) -> float:
    match event:
        case SampledGaussian():
            return event.noise_multiplier
        case SecureSummed():
            return math.sqrt(event.noise_variance) / event.l2_bound
        case NonPrivate():
            return 0.0


def _noise(model: Brain, stage: Stage, plan: TrainingPlan, event: Charge) -> np.ndarray:
    """(weights,) float64: what a whole run of nobody adds to the mean gradient."""
    match event:
        case SampledGaussian():
            return _local(model, stage, plan, event)
        case SecureSummed():
            return _summed(model, stage, plan, event.size)
        case NonPrivate():
            return np.zeros(0)


def _local(model: Brain, stage: Stage, plan: TrainingPlan, event: SampledGaussian) -> np.ndarray:
    """(weights,) float64: the mean over sites and steps of what a round of nobody moved the model by.

    Trained tensors start at zero, so that float32 holds the noise and nothing beside it.
    """
    total = np.zeros(sum(tensor.numel() for tensor in trainable(model).values()))
    for site in plan.sites:
        with torch.no_grad():
            for tensor in trainable(model).values():
                tensor.zero_()
        total += train_round(model, stage, [], site.patients, event, SecretNoise(), torch.Generator())
    return total / (len(plan.sites) * event.steps)


def _summed(model: Brain, stage: Stage, plan: TrainingPlan, size: int) -> np.ndarray:
    """(weights,) float64: the mean over steps of the sum of what every site adds, over all patients of a step."""
    everybody, total = sum(site.patients for site in plan.sites), np.zeros(size)
    for number in range(1, stage.rounds + 1):
        agreed = terms(plan, [size], stage, number, 1)
        for _ in plan.sites:
            total += noisy_numbers(model, stage, [], agreed).values / agreed.scale
    return total / (stage.rounds * stage.sample_rate * everybody)


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people."""
    yield (
        f"{'mechanism':<12}{'weights':>9}{'sites':>6}{'patients':>9}{'epsilon':>8}{'rate':>6}{'steps':>6}{'multiplier':>11}"
        f"{'law':>9}{'measured':>10}{'ratio':>7}  stated"
    )
    for row in rows:
        case, sites = row.case, f"{row.case.consortium.sites:>6}{row.case.consortium.patients:>9}"
        stated = "no claim" if row.within is None else f"{LOW:g} to {HIGH[row.kind]:g}, {'within' if row.within else 'OUTSIDE'}"
        plan = f"{case.mechanism:<12}{row.weights:>9}{sites}{case.epsilon:>8g}{case.rate:>6g}{case.steps:>6}"
        yield f"{plan}{row.multiplier:>11.3g}{row.law:>9.3g}{row.measured:>10.3g}{row.ratio:>7.3f}  {stated}"


def as_json(rows: Sequence[Row]) -> str:
    """The table for programs."""
    return json.dumps([asdict(row) | {"ratio": row.ratio, "within": row.within} for row in rows], indent=1)


def picture(rows: Sequence[Row]) -> bytes:
    """PNG: measured against law, and their ratio."""
    figure = figures.blank(9.2, 4.2, 130)
    left, right = figure.subplots(1, 2)
    ends = [min(row.law for row in rows) / 1.5, max(row.law for row in rows) * 1.5]
    left.plot(ends, ends, color="#1c2330", lw=1, ls=(0, (5, 4)))
    right.axhline(1, color="#1c2330", lw=1, ls=(0, (5, 4)))
    for kind, (label, colour, marker) in _LOOKS.items():
        shown = [row for row in rows if row.kind == kind]
        if shown:
            x, over = [row.law for row in shown], [row.ratio for row in shown]
            left.scatter(x, [row.measured for row in shown], s=34, color=colour, marker=marker, label=label, zorder=3)
            right.errorbar(x, over, [2 * row.unsure for row in shown], color=colour, marker=marker, ls="", capsize=3)
    left.set(xscale="log", yscale="log", xlabel="sqrt(weights) / (mu x patients)", ylabel="noise over clip, measured")
    right.set(xscale="log", xlabel="sqrt(weights) / (mu x patients)", ylabel="measured / law, 95 % of chance")
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#c9ced6", lw=0.6)
    return figures.png(figure)
