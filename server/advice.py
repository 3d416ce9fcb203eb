"""What a consortium should choose and can expect, before it has a plan: from the utility law and the reference frontier.

The law says how loud privacy will be for so many patients at such an epsilon (braing3n_core/law.py); the reference says what
runs with noise like that learned (server/reference.py). Where the question lies outside what was measured the answer says so,
and where no row is near there is no answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from braing3n_core.budget import Privacy, SecureSum
from braing3n_core.charges import with_fallback
from braing3n_core.console import for_programs
from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.law import QUIET, colluders, mu, noise_over_clip, room
from braing3n_core.plan import Cell, Data, Federation, Release, Site, Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from server.reference import Baseline, Expected, Measure, Reference

Choice = Literal["local", "secure-sum"]
_LOUDER, _FEWER, _MORE = 2.0, 4.0, 40.0                      # times beyond the rows: further out there is no row near
_ANY = 1e9                                                   # until it is known what the noise is worth
_MEANS: dict[Measure, str] = {
    "distance": "KID to held-out patients",
    "frechet": "Fréchet distance to held-out patients",
    "ageing": "ventricle growth with age, ml per decade",
    "age": "error of a probe of age fitted to generated people, years",
}


@dataclass(frozen=True)
class Question:
    """A consortium of `sites` equal hospitals. `vote` is kept from epsilon for the copy vote of a release; 0: no vote."""

    sites: int
    patients: int                                            # that each declares
    epsilon: float
    delta: float
    mechanism: Choice | None = None                          # None: to be chosen
    vote: float = 0.0

    @property
    def all_patients(self) -> int:
        """Of all sites together."""
        return self.sites * self.patients

    def refuse_nonsense(self) -> None:
        """Raise UsageError or PlanRefused for what no plan could say."""
        if not (self.sites >= 1 and self.patients >= 1):
            raise UsageError("--sites and --patients count from 1; write for example --sites 4 --patients 250 --epsilon 3")
        if not (0 < self.epsilon < math.inf and 0 <= self.vote < self.epsilon):
            raise UsageError("--epsilon must be a finite number above zero, and above --vote; write for example --epsilon 3")
        if self.mechanism == "secure-sum" and self.sites < 2:
            raise PlanRefused("a secure sum needs at least two sites; leave --mechanism out, or choose local")
        most = 1 / (10 * self.all_patients)
        if not 0 < self.delta <= most:
            raise PlanRefused(
                f"delta={self.delta:g} is not below 1 / (10 x {self.all_patients} patients); take --delta {_rounded(most):g}"
            )


@dataclass(frozen=True)
class Advice:
    """The answer. `noise` is that of the run's mean gradient over the clipping bound, all sites together, by the law."""

    question: Question
    mechanism: Choice
    why: str
    learns: str                                              # what is trained
    weights: int
    rounds: int
    noise: dict[Choice, float]
    room: float                                              # most weights that the law would leave quiet
    largest: str | None                                      # of what a stage may train: the largest that has room, unmeasured
    expect: dict[Measure, Expected]
    between: Baseline                                        # the two ends of what is expected, of the nearest consortium
    beyond: tuple[str, ...]                                  # how far outside the measured rows, in words; empty: within
    plan: TrainingPlan

    def as_json(self) -> str:
        """For programs."""
        fields = {name: value for name, value in self.__dict__.items() if name != "plan"}
        told = {name: asdict(value) for name, value in self.expect.items()}
        plain = {"question": asdict(self.question), "expect": told, "between": self.between.model_dump(mode="json")}
        return for_programs(fields | plain | {"plan": json.loads(self.plan.canonical())})


def advise(question: Question, reference: Reference) -> Advice:
    """Choose a mechanism and what is learned. Raises UsageError, or PlanRefused where no measured row is near."""
    question.refuse_nonsense()
    noise, spent = loudness(question, reference.weights), mu(question.epsilon - question.vote, question.delta)
    mechanism, why = _chosen(question, noise, reference)
    _refuse_what_no_row_is_near(question, mechanism, noise[mechanism], reference)
    left = room(mechanism, question.sites, question.patients, spent)
    fitting = {name: size for name, size in reference.sizes.items() if reference.weights < size <= left}
    return Advice(
        question, mechanism, why, reference.stage.trainable, reference.weights, reference.stage.rounds, noise, left,
        max(fitting, key=lambda name: fitting[name]) if fitting else None,
        {name: reference.expected(name, noise[mechanism]) for name in reference.measures},
        reference.nearest(question.all_patients), tuple(_beyond(question, noise[mechanism], reference)),
        plan_of(question, mechanism, reference.stage),
    )  # fmt: skip


def loudness(question: Question, weights: int) -> dict[Choice, float]:
    """Noise over clip under each mechanism that so many sites can have."""
    spent = mu(question.epsilon - question.vote, question.delta)
    known: tuple[Choice, ...] = ("secure-sum", "local") if question.sites > 1 else ("local",)
    return {kind: noise_over_clip(kind, weights, question.sites, question.patients, spent) for kind in known}


def plan_of(question: Question, mechanism: Choice, stage: Stage) -> TrainingPlan:
    """A whole plan to start from, which `plan check` accepts: sites are to be named, the release to be asked for."""
    summed = mechanism == "secure-sum"
    rests_on = SecureSum(fallback_epsilon=_ANY, dropped=0, colluding=colluders(question.sites)) if summed else None
    plan = TrainingPlan(
        study="advice", question="", seed=1, data=Data(),
        sites=tuple(Site(name=f"site-{number + 1:02d}", patients=question.patients) for number in range(question.sites)),
        privacy=Privacy(mechanism=mechanism, epsilon=question.epsilon, delta=question.delta, vote_epsilon=question.vote,
                        secure_sum=rests_on),
        stages=(stage.model_copy(update={"share": 1.0}),),
        federation=Federation(quorum=question.sites if summed else question.sites // 2 + 1, deadline_s=3600.0),
        release=Release(seed=1, cells=(Cell(count=100, conditions={"age": (20.0, 90.0), "sex": ("F", "M")}),)),
    )  # fmt: skip
    return with_fallback(plan, [len(values) for values in initial_values(load_prior(plan), plan)]) if summed else plan


def _chosen(question: Question, noise: dict[Choice, float], reference: Reference) -> tuple[Choice, str]:
    """The quieter, unless the other is so quiet already that no row tells the two apart."""
    if question.mechanism is not None:
        return question.mechanism, "as you asked"
    if question.sites < 2:
        return "local", "one site has no sum to hide in"
    quietest, _ = reference.loudness
    if noise["local"] <= quietest:
        return "local", "it trusts nobody, and no row has noise as low, so what a secure sum would gain is not known"
    return "secure-sum", f"its noise is {noise['local'] / noise['secure-sum']:.2f} times less than that of local"


def _refuse_what_no_row_is_near(question: Question, mechanism: Choice, noise: float, reference: Reference) -> None:
    (_, loudest), (fewest, most) = reference.loudness, reference.cohort
    measure = f"measure it: braing3n-sim frontier demo.toml --sites {question.sites} --patients {question.patients}"
    if not noise <= _LOUDER * loudest:
        needed = math.ceil(question.patients * noise / (_LOUDER * loudest))
        raise PlanRefused(
            f"no measured row is near: noise over clip would be {noise:.2g}, and beyond {_LOUDER * loudest:.2g}, twice the "
            f"loudest row, nothing is known to be learned; {mechanism} takes {needed} patients a site, or a larger epsilon"
        )
    if not question.all_patients * _FEWER >= fewest:
        raise PlanRefused(
            f"no measured row is near: {question.all_patients} patients in all, the fewest that were measured are {fewest}; "
            f"{measure}"
        )
    if not question.all_patients <= _MORE * most:
        raise PlanRefused(
            f"no measured row is near: {question.all_patients} patients in all, the most that were measured are {most}, and so "
            f"many could train more than a mean; {measure}"
        )


def _beyond(question: Question, noise: float, reference: Reference) -> Iterator[str]:
    (quietest, loudest), (fewest, most) = reference.loudness, reference.cohort
    if noise > loudest:
        yield f"the noise is {noise / loudest:.1f} times the loudest that was measured ({loudest:.2g}): expect less than this"
    if noise < quietest:
        yield f"the noise is {quietest / noise:.1f} times below the least that was measured ({quietest:.2g}): expect no less"
    if question.all_patients < fewest:
        times = math.sqrt(fewest / question.all_patients)
        yield f"{question.all_patients} patients, the fewest measured are {fewest}: their mean is {times:.1f} times less sure"
    if question.all_patients > most:
        yield f"{question.all_patients} patients, the most measured are {most}"
    if question.sites not in reference.sites:
        known = " and ".join(str(count) for count in reference.sites)
        yield f"{question.sites} sites, measured were {known}; more sites can differ in more ways"


def in_words(advice: Advice) -> Iterator[str]:
    """The answer for a person, without the plan."""
    asked = advice.question
    yield f"{asked.sites} sites of {asked.patients} patients at epsilon {asked.epsilon:g}, delta {asked.delta:g}" + (
        f", of which {asked.vote:g} for the vote on copies" if asked.vote else ""
    )
    yield f"choose {advice.mechanism}: {advice.why}"
    rests_on = advice.plan.privacy.secure_sum
    if rests_on:
        alone = rests_on.fallback_epsilon
        yield f"  rests on at most {rests_on.colluding} colluding site; against all others together it is epsilon {alone:g}"
    yield f"learn {advice.learns} as a mean: {advice.weights} weights, {advice.rounds} rounds of one step with everybody"
    noise = advice.noise[advice.mechanism]
    verdict = "quiet enough to learn" if noise < QUIET else f"louder than {QUIET:g}"
    others = "".join(f"; {kind} would have {value:.2g}" for kind, value in advice.noise.items() if kind != advice.mechanism)
    yield f"  noise over clip {noise:.2g}, {verdict}{others}"
    if advice.largest:
        yield f"  the law leaves room for {advice.room:,.0f} weights, so for {advice.largest}; no row has it: it is not advised"
    yield "expect, of what training without privacy gains over the public prior:"
    for name, found in advice.expect.items():
        ends = f"{advice.between.prior[name]:.3g} by the prior, {advice.between.without_privacy[name]:.3g} without privacy"
        yield f"  {_share(found.share)} in {_MEANS[name]} ({ends}; {_runs(found)})"
    yield "this is an extrapolation:" if advice.beyond else "this lies within what was measured"
    yield from (f"  {words}" for words in advice.beyond)
    yield "measured on phantom hospitals; yours differ from the public prior in their own ways, the noise does not"


def _runs(found: Expected) -> str:
    """What single runs reached, so that one is not taken for many."""
    if found.runs == 1:
        return f"one run with noise like it: {_share(found.low)}"
    return f"{found.runs} runs with noise like it: {_share(found.low)} to {_share(found.high)}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value > 0 else "nothing" if value > -0.5 else "worse than nothing"


def _rounded(most: float) -> float:
    """The largest power of ten up to `most`."""
    return float(10 ** math.floor(math.log10(most) + 1e-9))
