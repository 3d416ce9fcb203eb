"""Claimed against measured: the step that a recipe's stages take, attacked with canaries at an epsilon low enough to refute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import Stage, TrainingPlan
from privacy.accountant import calibrate, calibrate_sums
from privacy.audit import BOUND, Audit, Setting, audit, numbers
from privacy.events import SampledGaussian, SecureSummed
from privacy.integer_noise import rounded_bound
from privacy.selftest import SelfTest, run
from privacy.steps import SumOverSites
from privacy.sum_selftest import run_sum

CLAIMED: Final = 2.0                                         # where a factor of two in the noise shows
MOST_STEPS: Final = 40
_DELTA: Final = 1e-5


@dataclass(frozen=True)
class Row:
    """One stage's steps, at the audit's own noise."""

    stage: str
    sample_rate: float
    steps: int
    found: Audit


@dataclass(frozen=True)
class Measured:
    """What self-test and attack say about the code that trains every stage of a plan.

    About the code: made-up patients and a small network, at an epsilon of its own. It says nothing about the plan's epsilon,
    which is too high for any attack to refute.
    """

    selftest: SelfTest
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """No broken invariant and no refuted claim; a warning alone does not fail."""
        return self.selftest.passed and not any(row.found.refuted for row in self.rows)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        rows = [asdict(row) | {"refuted": row.found.refuted, "warned": row.found.warned} for row in self.rows]
        return {"passed": self.passed, "selftest": [asdict(finding) for finding in self.selftest.findings], "rows": rows}

    def in_words(self) -> Iterator[str]:
        """The same for a person."""
        for finding in self.selftest.findings:
            yield f"{'ok    ' if finding.holds else 'BROKEN'}  {finding.invariant}: {finding.found}"
        yield f"attack on 1000 canaries, lower bounds of epsilon at delta {_DELTA:g}, 95 % confidence:"
        yield f"  {'stage':12s} {'claimed':>8s} {'any step':>9s} {'f-DP':>6s} {'allowed':>8s} {'Gaussian':>9s}"
        for row in self.rows:
            found, verdict = row.found, "REFUTED" if row.found.refuted else "warning" if row.found.warned else "not refuted"
            numbers = f"{found.claimed:8.2f} {found.one_run:9.2f} {found.f_dp:6.2f} {found.covering:8.2f} {found.gaussian:9.2f}"
            yield f"  {row.stage:12s} {numbers}  {verdict}"
        yield "any step and f-DP are certificates; Gaussian is a warning. Nothing refuted does not prove privacy."


def audit_plan(plan: TrainingPlan) -> Measured:
    """Self-test once, and one attack for every stage of `plan`. Tens of seconds for each stage."""
    if plan.privacy.mechanism == "non-private":
        raise PlanRefused("this plan trains without privacy, so there is no claim to audit; choose a recipe with a mechanism")
    selftest = run_sum() if plan.privacy.secure_sum else run()
    return Measured(selftest, tuple(_row(plan, stage) for stage in plan.stages))


def _row(plan: TrainingPlan, stage: Stage) -> Row:
    return Row(stage.name, stage.sample_rate, _steps(stage), attacked(plan, stage, CLAIMED, _DELTA))


def attacked(plan: TrainingPlan, stage: Stage, claimed: float, delta: float) -> Audit:
    """The step that trains `stage`, as often as it does and by the plan's mechanism, calibrated to `claimed` and attacked."""
    setting, steps, rests_on = Setting(delta=delta), _steps(stage), plan.privacy.secure_sum
    rows = [(stage.sample_rate, steps, 1.0)]
    if rests_on is None:
        (multiplier,) = calibrate(rows, claimed, delta)
        return audit(setting=replace(setting, event=SampledGaussian(stage.name, multiplier, stage.sample_rate, steps)))
    size, scale = numbers(setting.canaries), rests_on.grid / BOUND
    honest = len(plan.sites) - rests_on.dropped - rests_on.colluding
    bound = rounded_bound(BOUND, scale, size)
    (variance,) = calibrate_sums(rows, [(bound, size)], claimed, delta)
    event = SecureSummed(stage.name, variance, bound, size, stage.sample_rate, steps, honest)
    return audit(SumOverSites(scale), replace(setting, event=event))


def _steps(stage: Stage) -> int:
    return min(stage.rounds * stage.local_steps, MOST_STEPS)
