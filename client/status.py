"""Where a hospital stands: what it agreed to, what was spent, and what last left. Reads only, also while a round runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from braing3n_core.agreement import Agreement
from braing3n_core.console import for_programs
from braing3n_core.plan import StageName
from client.approvals import all_approved, own_key
from client.site_file import SiteFile
from client.statement import Line, read_statement


@dataclass(frozen=True)
class PlanState:
    """One plan this hospital approved at some time."""

    plan: str                                                # digest
    study: str
    runs: bool                                               # a request for it would be worked on
    why: str                                                 # why not, if not
    rounds: int                                              # of the plan, spare ones too
    paid: int                                                # rounds charged so far


@dataclass(frozen=True)
class SiteStatus:
    """What `braing3n-site status` says."""

    site: str
    key: str                                                 # fingerprint
    server: str
    spent: float                                             # epsilon of one patient, over all plans
    allowed: float
    plans: tuple[PlanState, ...]
    last: Mapping[str, object]                               # the last message's header and time; empty if none ever left

    def as_json(self) -> str:
        """For programs; an infinite epsilon is the text "infinite"."""
        return for_programs(asdict(self))


def status(site: SiteFile) -> SiteStatus:
    """Read the site's folder. Raises LedgerCorrupt if its ledger is not whole."""
    has_ledger = (site.folder / "ledger.jsonl").exists()
    statement = read_statement(site.folder) if has_ledger else None
    lines = statement.lines if statement else ()
    plans = tuple(_state(digest, found, lines) for digest, found in all_approved(site))
    spent = statement.epsilon if statement else 0.0
    return SiteStatus(site.name, own_key(site).fingerprint, site.server, spent, site.policy.epsilon, plans, _last(site))


def in_words(found: SiteStatus) -> Iterator[str]:
    """The same for a person."""
    yield f"{found.site}, key {found.key[:16]}, joins {found.server or 'no server yet: set server in site.toml'}"
    yield f"one patient has spent epsilon {found.spent:.3g} of {found.allowed:g} allowed here, over all plans"
    for plan in found.plans:
        state = f"{plan.paid} of {plan.rounds} rounds paid for" if plan.runs else f"does not run: {plan.why}"
        yield f"  plan {plan.plan[:12]} {plan.study}: {state}"
    if not found.plans:
        yield "  no plan was approved; look at one with: braing3n-site review PLAN"
    if found.last:
        yield f"last message: {found.last['kind']} at {found.last['time']}"


def _state(digest: str, found: Agreement | Exception, lines: Sequence[Line]) -> PlanState:
    """Rounds are those of stages: votes, the census and numbers on a stage are paid for too, and are none."""
    paid = sum(line.rounds for line in lines if line.plan == digest and line.stage in get_args(StageName))
    if isinstance(found, Exception):
        return PlanState(digest, "", runs=False, why=str(found), rounds=0, paid=paid)
    rounds = sum(stage.rounds + found.plan.privacy.spare for stage in found.plan.stages)
    return PlanState(digest, found.plan.study, True, "", rounds, paid)


def _last(site: SiteFile) -> dict[str, object]:
    path = site.folder / "audit.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    if not lines:
        return {}
    line = json.loads(lines[-1])
    return {"time": line["time"], **line["header"]}
