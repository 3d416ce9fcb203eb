"""What a plan will cost and how loud its noise will be, before anybody is asked: from the plan's own numbers, no patient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core.census import counted_variables
from braing3n_core.charges import Charge, charges, everything, refuse_weak_fallback
from braing3n_core.console import for_programs
from braing3n_core.errors import PlanRefused
from braing3n_core.fit import readings, scale_of
from braing3n_core.law import QUIET
from braing3n_core.models.brain import MEASURES, Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from privacy.accountant import epsilon, epsilon_alone
from privacy.egress import CENSUS_STAGE, FIT_STAGE
from privacy.events import NonPrivate, SampledGaussian, SecureSummed


@dataclass(frozen=True)
class StageCheck:
    """One stage's numbers; noise is that of the run's mean gradient over the clipping bound, for each site alone."""

    stage: str
    trainable: str
    weights: int
    steps: int                                               # rounds x local steps
    noise_multiplier: float
    noise_over_clip: dict[str, float]                        # site -> ratio, with its own patients alone
    pooled: float                                            # the same for all sites together

    @property
    def quiet(self) -> bool:
        """Whether what all sites make together is below QUIET."""
        return self.pooled < QUIET


@dataclass(frozen=True)
class PlanCheck:
    """What `braing3n-admin plan check` says."""

    study: str
    digest: str
    mechanism: str
    epsilon: float                                           # what all rounds will spend, recomputed from the noise
    alone: float                                             # the same against the server and all other sites together
    agreed: float
    delta: float
    stages: tuple[StageCheck, ...]
    census_error: float | None                               # deviation of every count of a site, patients; None: no census
    fit_noise: dict[str, float]                              # stage -> deviation of its change of loss, of the usual loss
    reach: dict[str, tuple[float, float]]                    # measured variable -> where an exact release brings people, ml

    def as_json(self) -> str:
        """For programs."""
        return for_programs({**asdict(self), "pooled": {s.stage: s.pooled for s in self.stages}})


def checked(file: Path) -> PlanCheck:
    """Read and check the plan. Raises PlanRefused with what is wrong, why, and what next."""
    return check(TrainingPlan.load(file))


def check(plan: TrainingPlan) -> PlanCheck:
    """What this plan will cost and how loud its noise will be. Raises PlanRefused if fallback or release cannot hold."""
    model = load_prior(plan)
    reach = _reach(plan, model)
    sizes = [len(values) for values in initial_values(model, plan)]
    refuse_weak_fallback(plan, sizes)
    costs, stages = charges(plan, sizes), []
    for stage, weights in zip(plan.stages, sizes, strict=True):
        sigma, steps = _multiplier(costs[stage.name]), stage.rounds * stage.local_steps
        loud = {site.name: _ratio(weights, sigma, stage.sample_rate, steps, site.patients) for site in plan.sites}
        pooled = _pooled(plan, weights, sigma, stage.sample_rate, steps, list(loud.values()))
        stages.append(StageCheck(stage.name, stage.trainable, weights, steps, sigma, loud, pooled))
    privacy, events = plan.privacy, everything(plan, sizes)
    spent, alone = epsilon(events, privacy.delta), epsilon_alone(events, privacy.delta)
    error = _multiplier(costs[CENSUS_STAGE]) * math.sqrt(len(counted_variables(plan))) if plan.census else None
    return PlanCheck(
        plan.study, plan.digest, privacy.mechanism, spent, alone, privacy.epsilon, privacy.delta, tuple(stages), error,
        _fit_noise(plan, costs), reach,
    )  # fmt: skip


def _reach(plan: TrainingPlan, model: Brain) -> dict[str, tuple[float, float]]:
    """Measured variable -> from where to where an exact release brings people, ml; none if the release is not exact.

    Raises PlanRefused if a cell, or a census that the release follows, asks for anything else.
    """
    if model.steering is None:
        return {}
    names = [variable.name for variable in plan.variables if variable.source == "measured" and variable.name in MEASURES]
    ends = [model.steering.least.tolist(), model.steering.most.tolist()]
    found = {name: (ends[0][MEASURES.index(name)], ends[1][MEASURES.index(name)]) for name in names}
    for name in found if plan.release.follow == "census" else ():
        if name in {variable.name for variable in counted_variables(plan)}:
            raise PlanRefused(f"release.exact: {name} would be drawn as the census found it, beyond what people can be "
                              "brought to; leave it out of the census, or leave exact out")  # fmt: skip
    for name, asked in [each for cell in plan.release.cells for each in cell.conditions.items() if each[0] in found]:
        least, most = found[name]
        if not all(isinstance(end, float) and least <= end <= most for end in asked):
            raise PlanRefused(
                f"release.exact: {name} is asked for as {', '.join(map(str, asked))} ml, and people can be brought to "
                f"{least:.1f} to {most:.1f} ml; ask within, or leave exact out"
            )
    return found


def _fit_noise(plan: TrainingPlan, costs: Mapping[str, Charge]) -> dict[str, float]:
    """All sites together; the usual loss is that of public people under the prior."""
    told = dict.fromkeys(stage.name for stage, _ in readings(plan))
    everybody = sum(site.patients for site in plan.sites)
    return {
        stage: scale_of(stage, "after").deviation(_multiplier(costs[FIT_STAGE]), everybody, len(plan.sites))
        / scale_of(stage, "before").middle
        for stage in told
    }


def _multiplier(cost: Charge) -> float:
    """Noise over clip of one step: of one site or, in a secure sum, of the sum."""
    match cost:
        case SampledGaussian():
            return cost.noise_multiplier
        case SecureSummed():
            return math.sqrt(cost.noise_variance) / cost.l2_bound
        case NonPrivate():
            return 0.0


def _pooled(plan: TrainingPlan, weights: int, sigma: float, rate: float, steps: int, loud: Sequence[float]) -> float:
    """The ratio for all sites' patients together.

    `local`: sites' noises are independent, and with weights w_i = N_i / N the deviation is sqrt(sum (w_i r_i)^2), where w_i r_i
    is the same for every site. A secure sum has one noise for all; while nobody is missing, the shares held ready add to it.
    """
    if not plan.privacy.private:
        return 0.0
    if plan.privacy.secure_sum is None:
        inverse = [1 / ratio for ratio in loud]
        return math.sqrt(len(inverse)) / sum(inverse)
    rests_on, sites = plan.privacy.secure_sum, len(plan.sites)
    spare = math.sqrt(sites / (sites - rests_on.dropped - rests_on.colluding))
    return spare * _ratio(weights, sigma, rate, steps, sum(site.patients for site in plan.sites))


def in_words(check: PlanCheck) -> Iterator[str]:
    """The same for a person."""
    yield f"{check.study}: the plan holds together, digest {check.digest}"
    yield f"{check.mechanism}: epsilon {check.epsilon:.4g} of {check.agreed:g} agreed, delta {check.delta:g}, per patient"
    if check.mechanism == "secure-sum":
        yield f"  against the server and all other sites together: epsilon {check.alone:.4g}"
    for stage in check.stages:
        yield (
            f"  {stage.stage:<10} {stage.trainable:<18} {stage.weights:>8} weights, {stage.steps} steps, "
            f"noise multiplier {stage.noise_multiplier:.3g}"
        )
        sites = ", ".join(f"{site} {ratio:.2g}" for site, ratio in stage.noise_over_clip.items())
        verdict = "quiet enough to learn" if stage.quiet else f"louder than {QUIET:g}: train fewer weights, or more patients"
        alone = f"; alone {sites}" if check.mechanism == "local" else ""
        yield f"             noise over clip: all sites {stage.pooled:.2g} ({verdict}){alone}"
    if check.census_error is not None:
        yield f"  census: every count of one site is told to about {check.census_error:.2g} patients (one standard deviation)"
    for name, (least, most) in check.reach.items():
        yield f"  exact: people can be brought to {name} of {least:.1f} to {most:.1f} ml"
    for name, noise in check.fit_noise.items():
        yield f"  fit: what {name} changes of the loss of all sites is told to {noise:.2%} of it (one standard deviation)"


def _ratio(weights: int, sigma: float, rate: float, steps: int, patients: int) -> float:
    """Norm of the noise on the mean gradient over `steps` steps, in clipping bounds: sqrt(weights) sigma / (q N sqrt(T))."""
    return math.sqrt(weights) * sigma / (rate * patients * math.sqrt(steps))
