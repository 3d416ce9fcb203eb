"""What happens in which order, and which replies count: the run as a state machine without network, clock or disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused, ReplyRefused, WaitingForSites
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.protocol import Request
from privacy.egress import RefusalCode
from privacy.errors import BudgetExhausted
from server.aggregate import Aggregator, aggregator, bounded, checked
from server.stepper import Moments, step

Header = Mapping[str, object]
FOR_GOOD: dict[str, tuple[type[Exception], str]] = {         # refusals that asking again does not change
    RefusalCode.BUDGET_EXHAUSTED: (BudgetExhausted, "have no budget for it; agree a larger epsilon or plan fewer rounds"),
    RefusalCode.DATA_REFUSED: (DataRefused, "cannot use their data; read the site's own log"),
    RefusalCode.PLAN_REFUSED: (PlanRefused, "refuse the plan; read the site's own log"),
    RefusalCode.BAD_SETTINGS: (PlanRefused, "have settings the plan does not fit; read the site's own log"),
    RefusalCode.INTEGRITY: (IntegrityError, "found a file that is not what it was; read the site's own log"),
    RefusalCode.MECHANISM_REFUSED: (IntegrityError, "can give no guarantee for this plan; read the site's own log"),
}


@dataclass(frozen=True)
class State:
    """Where a run stands: `rounds` of stage number `stage` are done and led to `values` (braing3n_core.protocol)."""

    stage: int
    rounds: int
    values: np.ndarray
    spent: Mapping[str, float] = field(default_factory=dict)  # site -> epsilon, as the site last said
    moments: Moments = ()                                    # of the plan's server optimizer, in this stage


@dataclass(frozen=True)
class RoundReport:
    """One closed round. Nothing in it was measured on patients."""

    stage: str
    round: int
    replied: tuple[str, ...]
    refused: Mapping[str, str]                               # site -> why
    missing: tuple[str, ...]
    numbers: int                                             # float32, in each update: what crossed the wire, once a site


class Coordinator:
    """One run.

    Rules
     * A reply counts once, for the round it names, from a site of the plan, made from the values of that round.
     * A round closes with at least `quorum` usable replies; then what the plan makes of them is added to the values.
     * A round that does not close changes nothing and can be asked for again.
     * The values are finite at all times.
    """

    def __init__(self, plan: TrainingPlan, initial: Sequence[np.ndarray], state: State | None = None) -> None:
        self.plan = plan
        self.initial = tuple(initial)                        # one flat array per stage (protocol.initial_values)
        self.state = state or State(0, 0, self.initial[0].astype(np.float32))
        self.spent = dict(self.state.spent)
        expected = sum(len(part) for part in self.initial[: self.state.stage + 1])
        if not (len(self.state.values) == expected and np.isfinite(self.state.values).all()):
            raise IntegrityError("the run's state does not fit its plan; remove the newest checkpoint and resume")
        self._next_stage()
        self.forget_round()                                  # the sum is as long as the stage that is open now

    @property
    def done(self) -> bool:
        """Whether every round of every stage is closed."""
        return self.state.stage == len(self.plan.stages) - 1 and self.state.rounds >= self.stage.rounds

    @property
    def stage(self) -> Stage:
        """The stage the run is in."""
        return self.plan.stages[self.state.stage]

    def request(self) -> Request:
        """What every site is asked now. The same until the round closes."""
        return Request(self.plan.digest, self.stage.name, self.state.rounds + 1, self.state.values)

    def accept(self, site: str, header: Header, values: object) -> None:
        """Take a site's update. Raises ReplyRefused, and notes it, when the reply is not one this round asked for."""
        try:
            self._belongs(site, header)
            update = checked(site, values, len(self.initial[self.state.stage]))
        except ReplyRefused as error:
            # An impostor's or a repeated reply must not take away what the site rightly sent.
            if site in self._names() and site not in self.replies:
                self.refuse(site, str(error))
            raise
        how = self.plan.federation.aggregate
        self._sum.add(bounded(update, how.norm_bound) if how and how.norm_bound else update, self.plan.site(site).patients)
        self.replies.add(site)
        self.spent[site] = spent_by(header)
        self.forgive(site)

    def note_spent(self, site: str, epsilon: float) -> None:
        """Note what `site` said it has spent, outside a round."""
        self.spent[site] = epsilon
        self.state = replace(self.state, spent=dict(self.spent))

    def accept_sum(self, change: np.ndarray, sites: Sequence[str]) -> None:
        """Take the change (n,) that a secure sum over `sites` makes, in place of their updates."""
        self._sum.add(checked("the secure sum", change, len(self.initial[self.state.stage])), 1)
        self.replies |= set(sites)
        for site in sites:
            self.forgive(site)

    def note_refusal(self, site: str, header: Header) -> None:
        """Note what a site said that gives no update; only fixed words are told apart."""
        code = str(header.get("code", "no-answer"))
        where = ", the details are in the site's own log" if code in set(RefusalCode) else ""
        self.refuse(site, f"{code}{where}", code)

    def forgive(self, site: str) -> None:
        """Drop what `site` refused before it spoke after all."""
        self.refused.pop(site, None)
        self.codes.pop(site, None)

    def forget_refusals(self) -> None:
        """Drop what sites said that asking again may change."""
        for site in [site for site in self.refused if self.codes[site] not in FOR_GOOD]:
            self.forgive(site)

    @property
    def beyond_help(self) -> bool:
        """Whether refusals that asking again does not change leave too few sites."""
        return len(self.plan.sites) - len(self._lost()) < self.plan.federation.quorum

    def _lost(self) -> list[str]:
        return [site for site in self.refused if self.codes[site] in FOR_GOOD]

    def refuse(self, site: str, reason: str, code: str = "") -> None:
        """Note that `site` gives no update this round, and why."""
        if site in self._names() and site not in self.replies:
            self.refused[site] = reason
            self.codes[site] = code

    @property
    def waiting(self) -> tuple[str, ...]:
        """Sites that said nothing yet, in the plan's order."""
        return tuple(name for name in self._names() if name not in self.replies and name not in self.refused)

    def close_round(self) -> RoundReport:
        """Aggregate what came and go on. Raises WaitingForSites, BudgetExhausted, DataRefused or PlanRefused below quorum."""
        self.need_quorum(len(self.replies), "replied")
        number, stage = self.state.rounds + 1, self.state.stage
        length = len(self.initial[stage])
        report = RoundReport(self.stage.name, number, tuple(sorted(self.replies)), dict(self.refused), self.waiting, length)
        change, moments = step(self.plan.federation.optimizer, self._sum.result(), self.state.moments)
        values = self.state.values.copy()
        values[len(values) - len(change) :] += change
        if not np.isfinite(values).all():
            raise IntegrityError("the averaged values are not finite; resume from the last checkpoint")
        self.state = State(stage, number, values, dict(self.spent), moments)
        self._next_stage()
        self.forget_round()                                  # the sum is as long as the stage that is open now
        return report

    def forget_round(self) -> None:
        """Drop what came for the round that is open, so that it can be asked for again."""
        self.replies: set[str] = set()                       # sites whose update is in the sum
        self._sum: Aggregator = aggregator(self.plan.federation.aggregate, len(self.initial[self.state.stage]))
        self.refused: dict[str, str] = {}                    # site -> why
        self.codes: dict[str, str] = {}                      # site -> refusal code, if it sent one

    def _names(self) -> list[str]:
        return [site.name for site in self.plan.sites]

    def _next_stage(self) -> None:
        """A stage whose rounds are closed is over: the next one's untouched tensors join the values."""
        while self.state.rounds >= self.stage.rounds and not self.done:
            stage = self.state.stage + 1
            values = np.concatenate([self.state.values, self.initial[stage]]).astype(np.float32)
            self.state = State(stage, 0, values, self.state.spent)

    def _belongs(self, site: str, header: Header) -> None:
        """Raise ReplyRefused unless the header names this plan, stage, round and start, and the site may still speak."""
        if site not in self._names():
            raise ReplyRefused(f"{site!r} is not a site of the plan; its reply was dropped")
        if self.done:
            raise ReplyRefused(f"{site} replied after the last round; its reply was dropped")
        if site in self.replies:
            raise ReplyRefused(f"{site} replied to this round before; the second reply was dropped")
        request = self.request()
        asked = {"site": site, "plan": request.plan, "stage": request.stage, "round": request.round, "start": request.digest}
        for key, value in asked.items():
            if header.get(key) != value:
                given = f"{key}={str(header.get(key))[:12]}, not {str(value)[:12]}"
                raise ReplyRefused(f"{site} replied for {given}: late or stale; the reply was dropped")

    def need_quorum(self, usable: int, did: str) -> None:
        """Raise what best says why too few sites did what was asked: something only people can change, or mere waiting."""
        quorum, names = self.plan.federation.quorum, self._names()
        if usable >= quorum:
            return
        where = f"stage {self.stage.name}, round {self.state.rounds + 1}: {usable} of {len(names)} sites {did}"
        lost = {site: self.codes[site] for site in self._lost()}
        if self.beyond_help:
            code = next(code for code in FOR_GOOD if code in lost.values())
            kind, why = FOR_GOOD[code]
            sites = ", ".join(site for site in lost if lost[site] == code)
            raise kind(f"{where}, {quorum} are needed, and {sites} {why}")
        reasons = [f"{site} refused ({why})" for site, why in self.refused.items()]
        said = "; ".join(reasons + [f"{site} silent" for site in self.waiting])
        raise WaitingForSites(f"{where}, {quorum} are needed: {said}; run again with this output folder to resume")


def spent_by(header: Header) -> float:
    """What the site says it has spent so far; infinity if it does not say."""
    value = header.get("epsilon")
    return float(value) if isinstance(value, int | float) and value >= 0 else math.inf
