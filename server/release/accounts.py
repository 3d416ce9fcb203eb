"""What each site spent, as a certificate states it: by the site's own signed ledger or, without one, in the server's words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import TypeAdapter, model_validator

from braing3n_core.errors import IntegrityError
from braing3n_core.plan import Frozen, TrainingPlan
from braing3n_core.statements import LEDGER, PAYLOAD, read
from privacy.accountant import epsilon, epsilon_alone
from privacy.events import Event, from_record, to_record
from privacy.ledger import START, Book, chained
from privacy.signing import Envelope, PublicKey, opened

_ROUNDING = 1e-6                                             # between two machines' arithmetic; epsilon is printed to 1e-2


@dataclass(frozen=True)
class Sealed:
    """A site's signed ledger and the key that opens it."""

    key: PublicKey
    envelope: Envelope


class _Signature(Frozen):
    keyid: str
    sig: str


class _Envelope(Frozen):
    payloadType: str  # noqa: N815 - DSSE's own spelling
    payload: str
    signatures: tuple[_Signature, ...]


class Account(Frozen):
    """One site's row of the certificate. Infinity, which JSON does not know, is the word "infinite"."""

    site: str
    declared_patients: int
    agreed: float
    delta: float
    epsilon: float | Literal["infinite"]
    fallback: float | Literal["infinite"] | None = None      # against the server and all other sites; of secure sums alone
    events: tuple[dict[str, Any], ...]                       # privacy.events.to_record of everything that was paid for
    head: str | None = None                                  # of the site's ledger; None: not signed by the site
    public_key: str | None = None                            # PEM
    ledger: _Envelope | None = None

    @model_validator(mode="after")
    def _is_signed_or_not(self) -> Self:
        """A key without a ledger would count as a signature and be none."""
        if len({self.head is None, self.public_key is None, self.ledger is None}) != 1:
            raise ValueError(f"{self.site} has some of head, key and signed ledger; all belong there, or none")
        return self


def account(plan: TrainingPlan, site: str, events: Sequence[Event], said: float, seal: Sealed | None) -> Account:
    """The row of `site`: from its own ledger if it signed one, else from the `events` that the server saw.

    Without its signature the row states what those events cost or what the site `said` it spent, whichever is more: it may
    have paid for rounds that the server never heard of.

    Raises IntegrityError if the site's statement is not what its signature says, or is about another plan.
    """
    head, stated, row = None, tuple(events), plan.site(site)
    delta = plan.privacy.delta
    if seal is not None:
        head, stated = opened_ledger(plan.digest, site, delta, seal)
    return Account(
        site=site,
        declared_patients=row.patients,
        agreed=plan.privacy.epsilon,
        delta=delta,
        epsilon=_finite(epsilon(stated, delta) if seal else max(epsilon(stated, delta), said)),
        fallback=_fallback(plan, stated),
        events=tuple(to_record(event) for event in stated),
        head=head,
        public_key=seal.key.pem.decode("ascii") if seal else None,
        ledger=_Envelope.model_validate_json(TypeAdapter(Mapping[str, Any]).dump_json(seal.envelope)) if seal else None,
    )


def opened_ledger(plan: str, site: str, delta: float, seal: Sealed) -> tuple[str, tuple[Event, ...]]:
    """(head, events) of a site's signed ledger, every record chained anew.

    Raises SignatureRefused if the site did not sign it, LedgerCorrupt or MechanismRefused if its records follow no rule, and
    IntegrityError if it is another site's or another plan's, or if its records do not lead to the head it was signed under.
    """
    kind, subject, predicate = read(opened(seal.envelope, PAYLOAD, [seal.key]), f"the ledger of {site}")
    match predicate:
        case {"site": str(name), "plan": str(about), "records": list(records)}:
            pass
        case _:
            raise IntegrityError(f"the ledger of {site} is not one of this version; have the site sign it again")
    if not (kind == LEDGER and name == site and about == plan):
        raise IntegrityError(f"what stands for the ledger of {site} was signed for {name} and another plan; sign it again")
    book, head = Book(delta), START
    for record in records:
        head = chained(head, record)
        book.apply(record, head)
    if not head == subject:
        raise IntegrityError(f"the records of {site} do not lead to the head the site signed; have the site sign it again")
    if not any(reservation.purpose.startswith(f"{plan}/") for reservation in book.reservations):
        raise IntegrityError(f"the ledger of {site} never paid for this plan; it belongs to another run")
    return head, book.events


def refuse_untrue(plan: TrainingPlan, row: Account) -> None:
    """Raise IntegrityError unless the row states what its own events cost, and, if signed, what the site signed."""
    try:
        stated = [from_record(record) for record in row.events]
    except (TypeError, ValueError) as error:
        raise IntegrityError(f"the events of {row.site} cannot be read; get the release again") from error
    if row.ledger is not None:
        seal = Sealed(PublicKey.from_pem((row.public_key or "").encode()), row.ledger.model_dump(mode="json"))
        head, events = opened_ledger(plan.digest, row.site, plan.privacy.delta, seal)
        if not (head == row.head and tuple(stated) == events):
            raise IntegrityError(f"the certificate states another ledger for {row.site} than the site signed")
    site = plan.site(row.site)
    if not (row.agreed == plan.privacy.epsilon and row.delta == plan.privacy.delta and row.declared_patients == site.patients):
        raise IntegrityError(f"the certificate states other terms for {row.site} than the plan")
    spent = epsilon(stated, row.delta)
    claimed = float("inf") if row.epsilon == "infinite" else row.epsilon
    exact = spent == claimed or abs(spent - claimed) <= _ROUNDING * max(1.0, spent)
    if not (exact or (row.ledger is None and claimed >= spent)):
        raise IntegrityError(f"{row.site} states epsilon {claimed:.4g}; its events cost {spent:.4g}")
    if plan.privacy.private and not claimed <= row.agreed + _ROUNDING:
        raise IntegrityError(f"{row.site} spent epsilon {claimed:.4g} of {row.agreed:.4g} agreed")
    _refuse_untrue_fallback(plan, row, stated)


def worst_fallback(rows: Sequence[Account]) -> float | Literal["infinite"] | None:
    """The largest fallback epsilon of any site; None without secure sums."""
    stated = [float(row.fallback) if row.fallback != "infinite" else math.inf for row in rows if row.fallback is not None]
    return _finite(max(stated)) if stated else None


def _refuse_untrue_fallback(plan: TrainingPlan, row: Account, events: Sequence[Event]) -> None:
    truth = _fallback(plan, events)
    if truth is None or row.fallback is None or "infinite" in (truth, row.fallback):
        exact = row.fallback == truth
    else:
        exact = abs(float(truth) - float(row.fallback)) <= _ROUNDING * max(1.0, float(truth))
    if not exact:
        raise IntegrityError(f"{row.site} states fallback epsilon {row.fallback}; its events cost {truth}")
    agreed = plan.privacy.secure_sum
    if agreed and not (row.fallback != "infinite" and float(row.fallback or 0) <= agreed.fallback_epsilon + _ROUNDING):
        raise IntegrityError(f"{row.site} spent fallback epsilon {row.fallback} of {agreed.fallback_epsilon:.4g} agreed")


def _fallback(plan: TrainingPlan, events: Sequence[Event]) -> float | Literal["infinite"] | None:
    return _finite(epsilon_alone(events, plan.privacy.delta)) if plan.privacy.secure_sum else None


def _finite(value: float) -> float | Literal["infinite"]:
    return value if value != float("inf") else "infinite"



