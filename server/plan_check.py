"""What a plan will cost and how loud its noise will be, before anybody is asked: from the plan's own numbers, no patient."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from privacy.accountant import calibrate, epsilon
from privacy.egress import VOTE_STAGE
from privacy.events import Event, RandomisedResponse, SampledGaussian

QUIET = 0.3                                                  # noise over clip that training still learns under


@dataclass(frozen=True)
class StageCheck:
    """One stage's numbers; noise is that of the run's mean gradient over the clipping bound, for each site alone."""

    stage: str
    trainable: str
    weights: int
    steps: int                                               # rounds x local steps
    noise_multiplier: float
    noise_over_clip: dict[str, float]                        # site -> ratio

    @property
    def quiet(self) -> bool:
        """Whether the mean over all sites is below QUIET: their noise is independent."""
        return self.pooled < QUIET

    @property
    def pooled(self) -> float:
        """The ratio of the sites' mean, weighted by declared sizes: noise falls with the patients of all sites.

        With weights w_i = N_i / N the deviation is sqrt(sum (w_i r_i)^2), and w_i r_i is the same for every site.
        """
        inverse = [1 / ratio for ratio in self.noise_over_clip.values()]
        return math.sqrt(len(inverse)) / sum(inverse)


@dataclass(frozen=True)
class PlanCheck:
    """What `braing3n-admin plan check` says."""

    study: str
    digest: str
    mechanism: str
    epsilon: float                                           # what all rounds will spend, recomputed from the noise
    agreed: float
    delta: float
    stages: tuple[StageCheck, ...]

    def as_json(self) -> str:
        """For programs."""
        return json.dumps({**asdict(self), "pooled": {s.stage: s.pooled for s in self.stages}}, indent=1, allow_nan=False)


def checked(file: Path) -> PlanCheck:
    """Read and check the plan. Raises PlanRefused with what is wrong, why, and what next."""
    plan = TrainingPlan.load(file)
    sizes = [len(values) for values in initial_values(load_prior(plan), plan)]
    rows = [(stage.sample_rate, stage.rounds * stage.local_steps, stage.share) for stage in plan.stages]
    noise = calibrate(rows, plan.privacy.training, plan.privacy.delta)
    stages, events = [], list[Event](votes(plan))
    for stage, weights, sigma in zip(plan.stages, sizes, noise, strict=True):
        steps = stage.rounds * stage.local_steps
        events.append(SampledGaussian(stage.name, sigma, stage.sample_rate, steps))
        loud = {site.name: _ratio(weights, sigma, stage.sample_rate, steps, site.patients) for site in plan.sites}
        stages.append(StageCheck(stage.name, stage.trainable, weights, steps, sigma, loud))
    privacy = plan.privacy
    spent = epsilon(events, privacy.delta)
    return PlanCheck(plan.study, plan.digest, privacy.mechanism, spent, privacy.epsilon, privacy.delta, tuple(stages))


def votes(plan: TrainingPlan) -> list[RandomisedResponse]:
    """What the sites' vote on a release's candidates will cost."""
    paid = plan.privacy.vote_epsilon
    return [RandomisedResponse(VOTE_STAGE, paid)] * plan.privacy.vote_rounds if paid else []


def in_words(check: PlanCheck) -> Iterator[str]:
    """The same for a person."""
    yield f"{check.study}: the plan holds together, digest {check.digest}"
    yield f"{check.mechanism}: epsilon {check.epsilon:.4g} of {check.agreed:g} agreed, delta {check.delta:g}, per patient"
    for stage in check.stages:
        yield (
            f"  {stage.stage:<10} {stage.trainable:<18} {stage.weights:>8} weights, {stage.steps} steps, "
            f"noise multiplier {stage.noise_multiplier:.3g}"
        )
        sites = ", ".join(f"{site} {ratio:.2g}" for site, ratio in stage.noise_over_clip.items())
        verdict = "quiet enough to learn" if stage.quiet else f"louder than {QUIET:g}: train fewer weights, or more patients"
        yield f"             noise over clip: all sites {stage.pooled:.2g} ({verdict}); alone {sites}"


def _ratio(weights: int, sigma: float, rate: float, steps: int, patients: int) -> float:
    """Norm of the noise on the mean gradient over `steps` steps, in clipping bounds: sqrt(weights) sigma / (q N sqrt(T))."""
    return math.sqrt(weights) * sigma / (rate * patients * math.sqrt(steps))
