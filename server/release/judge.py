"""Which candidates make a release, and whether there may be one: every gate, the free ones first. Nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import T1W, TrainingPlan
from server.release import gates
from server.release.accounts import Sealed
from server.release.anatomy import Findings, examine
from server.release.candidates import Candidate, chosen
from server.release.cohort import Person
from server.release.gates import Gate, Votes
from server.release.inputs import Control, SitePrivacy
from server.release.policy import Policy

VENTRICLES = "ventricles"                                    # the condition that is measured on every T1w


class Consortium(Protocol):
    """What the sites can be asked for once there are candidates."""

    @property
    def votes(self) -> bool:
        """Whether the sites can be asked to vote."""

    def vote(self, volumes: Tensor, threshold: float) -> Votes:
        """Each site's noisy bits on the candidates (c, 1, D, H, W). Charged by the sites."""

    def privacy(self) -> Sequence[SitePrivacy]:
        """What every site's patients spent, the vote included."""

    def ledgers(self) -> Mapping[str, Sealed]:
        """The ledgers of the sites that sign them."""


@dataclass(frozen=True)
class Judged:
    """Every gate that could be judged. Nobody is chosen while one of the first three stays closed."""

    gates: list[Gate]
    people: list[Candidate] = field(default_factory=list)
    findings: list[Findings] = field(default_factory=list)   # one per image; so the next
    measured: list[float] = field(default_factory=list)      # ventricles, ml; NaN on what is no T1w
    control: Control | None = None


def judge(
    plan: TrainingPlan,
    policy: Policy,
    consortium: Consortium,
    pool: Sequence[Candidate],
    made: Tensor,
    control: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Judged:
    """Hold the candidates `made` (c, 1, D, H, W), one per row of `pool`, to the policy.

    Budget and anatomy come first, because they cost no patient anything; the vote is on all candidates, so that its answer
    does not depend on the others. `control` is (requested, measured) ventricles, ml, in place of the chosen people's own.
    Raises GateBlocked if a cell has too few candidates left, and PlanRefused if there is not one volume per candidate.
    """
    if len(made) != len(pool):
        raise PlanRefused(f"{len(made)} candidates were made, plan and policy ask for {len(pool)}; generate them again")
    found = [examine(volume, plan.model, one.person.modality) for one, volume in zip(pool, made, strict=True)]
    plausible, broken = gates.anatomy(policy.rules.anatomy, found)
    first = [gates.budget(plan, consortium.privacy()), plausible]
    if not all(gate.passed for gate in first):
        return Judged(first)
    asked = is_voted_on(plan) and consortium.votes
    votes = consortium.vote(made, policy.rules.copies.threshold) if asked else None
    copies, voted_out = gates.copies(plan, policy, votes, len(pool))
    if not copies.passed:
        return Judged([*first, copies])
    people = chosen(plan.release, pool, {**broken, **voted_out})
    indices = [one.index for one in people]
    measured = [found[index].ventricles_ml for index in indices]
    pairs = _control([one.person for one in people], measured, control)
    # The vote was paid for in between, so the budget is counted again.
    all_gates = [
        gates.budget(plan, consortium.privacy()), copies, plausible,
        gates.diversity(policy.rules.diversity, _first_visits(people, made), plan.model),
        gates.condition(policy.rules.condition, *((pairs.requested, pairs.measured) if pairs else ((), ()))),
    ]  # fmt: skip
    return Judged(all_gates, people, [found[index] for index in indices], measured, pairs)


def is_voted_on(plan: TrainingPlan) -> bool:
    """Whether the plan keeps budget for a vote and has anything to protect."""
    return plan.privacy.vote_epsilon > 0 and plan.privacy.private


def _first_visits(people: Sequence[Candidate], made: Tensor) -> dict[str, Tensor]:
    """Modality -> (n, 1, D, H, W), one image of that modality per person who has one."""
    first: dict[str, list[int]] = {}
    for one in people:
        if not one.person.years:
            first.setdefault(one.person.modality, []).append(one.index)
    return {modality: made[places] for modality, places in first.items()}


def _control(
    people: Sequence[Person], measured: Sequence[float], given: tuple[Sequence[float], Sequence[float]] | None
) -> Control | None:
    if given is None:
        shown = zip(people, measured, strict=True)
        pairs = [(person.now.get(VENTRICLES), found) for person, found in shown if person.modality == T1W]
        given = [float(a) for a, _ in pairs if a is not None], [b for a, b in pairs if a is not None]
    known = [(float(a), float(b)) for a, b in zip(*given, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Control(VENTRICLES, "ml", tuple(a for a, _ in known), tuple(b for _, b in known)) if known else None
