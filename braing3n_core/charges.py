"""What a plan's rounds cost a patient, and what the sites of a secure sum agree on: one place, so all sides say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

from braing3n_core.budget import SecureSum
from braing3n_core.errors import PlanRefused
from braing3n_core.fit import readings
from braing3n_core.kept import kept
from braing3n_core.plan import Stage, TrainingPlan
from privacy import accountant, opacus_bridge, renyi
from privacy.accountant import calibrate, calibrate_sums, epsilon, epsilon_alone
from privacy.egress import CENSUS_STAGE, FIT_STAGE, VOTE_STAGE, purpose_of
from privacy.errors import MechanismRefused
from privacy.events import Event, NonPrivate, RandomisedResponse, SampledGaussian, SecureSummed
from privacy.integer_noise import rounded_bound
from privacy.secure_sum import Terms

Charge = SampledGaussian | SecureSummed | NonPrivate
Rows = tuple[tuple[float, int, float], ...]                  # sample rate, steps, share of the budget; a row a stage


def charges(plan: TrainingPlan, sizes: Sequence[int]) -> dict[str, Charge]:
    """What one round of each stage costs, and the census, and one number on a stage, such that all of it spends what is kept.

    With spare rounds for failed secure sums, all of those are among them.

    `sizes`: how many numbers each stage trains (protocol.initial_values). Raises PlanRefused if secure sums of that size
    cannot be taken.
    """
    rows = _rows(plan)
    match plan.privacy.mechanism:
        case "non-private":
            counted = [CENSUS_STAGE] if plan.census else []
            return {name: NonPrivate(name) for name in [*(stage.name for stage in plan.stages), *counted]}
        case "local":
            return _gaussian(plan, rows)
        case "secure-sum":
            return {
                stage.name: terms(plan, sizes, stage, 1, 1).event(stage.name, stage.sample_rate) for stage in plan.stages
            }


def _gaussian(plan: TrainingPlan, rows: Rows) -> dict[str, Charge]:
    """Every patient is in the census once, and in each number on a stage: steps at rate 1, calibrated with the stages."""
    if plan.census:
        rows = (*rows, (1.0, 1, plan.census.share))
    if told := readings(plan):
        kept = plan.privacy.fit_share
        rows = (*((rate, steps, share * (1 - kept)) for rate, steps, share in rows), (1.0, len(told), kept))
    noise = _noise(rows, plan.privacy.training, plan.privacy.delta)
    found: dict[str, Charge] = {
        stage.name: SampledGaussian(stage.name, sigma, stage.sample_rate, stage.local_steps)
        for stage, sigma in zip(plan.stages, noise, strict=False)
    }
    if plan.census:
        found[CENSUS_STAGE] = SampledGaussian(CENSUS_STAGE, noise[len(plan.stages)], 1.0, 1)
    if told:
        found[FIT_STAGE] = SampledGaussian(FIT_STAGE, noise[-1], 1.0, 1)
    return found


def terms(plan: TrainingPlan, sizes: Sequence[int], stage: Stage, number: int, attempt: int) -> Terms:
    """What every site agrees on in round `number` of `stage`. Raises PlanRefused if it cannot be, or without secure sums."""
    rests_on, place = secure_sum(plan), [known.name for known in plan.stages].index(stage.name)
    bounds = tuple((rounded_bound(known.clip, rests_on.grid / known.clip, size), size)
                   for known, size in zip(plan.stages, sizes, strict=True))  # fmt: skip
    try:
        return Terms(
            sites=tuple(site.name for site in plan.sites),
            context=purpose_of(plan.digest, stage.name, number, attempt),
            size=sizes[place],
            l2_bound=stage.clip,
            scale=rests_on.grid / stage.clip,
            noise_variance=_variances(_rows(plan), bounds, plan.privacy.training, plan.privacy.delta)[place],
            most_patients=sum(site.patients for site in plan.sites),
            dropped=rests_on.dropped,
            colluding=rests_on.colluding,
        )
    except MechanismRefused as error:
        raise PlanRefused(f"stage {stage.name}: {error}; in a plan the scale is [privacy.secure_sum] grid over clip") from error


def secure_sum(plan: TrainingPlan) -> SecureSum:
    """What the plan's sums rest on. Raises PlanRefused if it has none."""
    if plan.privacy.secure_sum is None:
        raise PlanRefused('the plan takes no secure sums; its mechanism would have to be "secure-sum"')
    return plan.privacy.secure_sum


def votes(plan: TrainingPlan) -> list[RandomisedResponse]:
    """What the sites' vote on a release's candidates will cost."""
    paid = plan.privacy.vote_epsilon
    return [RandomisedResponse(VOTE_STAGE, paid)] * plan.privacy.vote_rounds if paid else []


def everything(plan: TrainingPlan, sizes: Sequence[int]) -> list[Event]:
    """All that the plan may charge: every round, spare ones for secure sums that fail, census, fit and votes."""
    once = charges(plan, sizes)
    rounds: list[Event] = [once[stage.name] for stage in plan.stages for _ in range(stage.rounds + plan.privacy.spare)]
    fits: list[Event] = [once[FIT_STAGE] for _ in readings(plan)]
    return [*rounds, *([once[CENSUS_STAGE]] if plan.census else []), *fits, *votes(plan)]


def refuse_weak_fallback(plan: TrainingPlan, sizes: Sequence[int]) -> None:
    """Raise PlanRefused unless each site's share of noise alone gives the local guarantee that the plan states."""
    if plan.privacy.mechanism != "secure-sum":
        return
    alone, stated = epsilon_alone(everything(plan, sizes), plan.privacy.delta), secure_sum(plan).fallback_epsilon
    if not alone <= stated:
        raise PlanRefused(
            f"one site's share of the noise is worth epsilon {alone:.3g} by itself, more than fallback_epsilon={stated:g}; "
            "lower epsilon, colluding or dropped, or agree on a larger fallback_epsilon"
        )


def with_fallback(plan: TrainingPlan, sizes: Sequence[int]) -> TrainingPlan:
    """The plan with the smallest fallback_epsilon that one share of its noise is worth, rounded up to a tenth."""
    rests_on, privacy = secure_sum(plan), plan.privacy
    worth = math.ceil(10 * epsilon_alone(everything(plan, sizes), privacy.delta)) / 10
    stated = rests_on.model_copy(update={"fallback_epsilon": max(worth, privacy.epsilon)})
    return plan.but(privacy=privacy.model_copy(update={"secure_sum": stated}))


def _rows(plan: TrainingPlan) -> Rows:
    spare = plan.privacy.spare
    return tuple((stage.sample_rate, (stage.rounds + spare) * stage.local_steps, stage.share) for stage in plan.stages)


@lru_cache(maxsize=64)
def _noise(rows: Rows, target: float, delta: float) -> tuple[float, ...]:
    """`calibrate`, kept from one process to the next: it asks the accountant many times, and a site needs it in every round.

    Guarantee: that of `calibrate`. The accountant is asked about what was kept as well, and has the last word.
    """
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (accountant, opacus_bridge, renyi))
    made_from = repr((rows, target, delta, version("opacus"))).encode() + code
    found = kept("noise", made_from, lambda: {"sigma": torch.tensor(calibrate(rows, target, delta), dtype=torch.float64)})
    sigmas = tuple(found["sigma"].tolist())
    return sigmas if _spend(sigmas, rows, target, delta) else calibrate(rows, target, delta)


def _spend(sigmas: tuple[float, ...], rows: Rows, target: float, delta: float) -> bool:
    """Whether these noise multipliers are what `calibrate` promises."""
    try:
        steps = [SampledGaussian("", sigma, rate, count) for sigma, (rate, count, _) in zip(sigmas, rows, strict=True)]
        return 0.99 * target <= epsilon(steps, delta) <= target
    except (MechanismRefused, ValueError):                   # no noise at all, or of other stages
        return False


@lru_cache(maxsize=64)
def _variances(rows: Rows, bounds: tuple[tuple[float, int], ...], target: float, delta: float) -> tuple[float, ...]:
    return calibrate_sums(rows, bounds, target, delta)
