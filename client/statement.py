"""A site's ledger in words: what was spent, on which plans, and whether it is whole. Reads only, also while a round runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core.console import for_programs
from braing3n_core.errors import DataRefused
from privacy.accountant import epsilon, epsilon_alone
from privacy.egress import FIT_STAGE, refuse_lost_records
from privacy.errors import LedgerCorrupt
from privacy.ledger import Book, Reservation, read_chain
from privacy.witness import Accounts, accounts


@dataclass(frozen=True)
class Line:
    """Every round of one stage of one plan."""

    plan: str                                                # digest
    stage: str
    rounds: int                                              # reserved, whatever became of them
    released: int
    abandoned: int                                           # paid for and given up: they stay spent
    epsilon: float                                           # of these rounds alone; epsilons do not add up


@dataclass(frozen=True)
class Statement:
    """What one patient of this site has spent, over everything that ever used these patients."""

    epsilon: float
    alone: float                                             # the same against the server and all other sites of secure sums
    witness: float | None                                    # the same by a second library; None where it knows no bound
    renyi: float                                             # and by Renyi accounting, which is looser
    delta: float
    head: str                                                # digest of the last record: keep it elsewhere
    records: int
    lines: tuple[Line, ...]
    audited: bool                                            # held against the audit log

    def as_json(self) -> str:
        """For programs; an infinite epsilon is the text "infinite"."""
        return for_programs(asdict(self))


def read_statement(folder: Path, *, verify: bool = False) -> Statement:
    """Read <folder>/ledger.jsonl, checking its whole chain; with `verify`, that every head in audit.jsonl is in it too.

    Raises LedgerCorrupt if the chain is broken or records are missing at its end, DataRefused if there is no ledger.
    """
    book, records = _book(folder / "ledger.jsonl")
    if verify:
        refuse_lost_records(lambda head: head in book.heads, folder / "audit.jsonl")
    spent, lines = accounts(book.events, book.delta), tuple(_lines(book))
    return Statement(
        spent.claim, epsilon_alone(book.events, book.delta), spent.witness, spent.renyi, book.delta, book.head, records, lines,
        audited=verify,
    )  # fmt: skip


def in_words(statement: Statement) -> Iterator[str]:
    """The same for a person."""
    yield f"spent: epsilon {statement.epsilon:.4g} at delta {statement.delta:g}, of one patient with all scans and visits"
    if statement.alone > statement.epsilon:
        yield f"  against the server and all other sites of its secure sums together: epsilon {statement.alone:.4g}"
    yield f"  {beside(Accounts(statement.epsilon, statement.witness, statement.renyi))}"
    for line in statement.lines:
        given_up = f", {line.abandoned} given up" if line.abandoned else ""
        what = "numbers" if line.stage.startswith(f"{FIT_STAGE}-") else "rounds"
        rounds = f"{line.rounds} {what} paid for, {line.released} answered{given_up}"
        yield f"  plan {line.plan[:12]}  {line.stage:<10} {rounds}; alone epsilon {line.epsilon:.4g}"
    yield f"chain: whole, {statement.records} records, head {statement.head}"
    if statement.audited:
        yield "audit log: every message in it was paid for in this ledger"
    yield "keep the head in a second place: a ledger that was rolled back to an older copy no longer has it"


def beside(spent: Accounts) -> str:
    """What other accountants say of the same history."""
    if spent.witness is None:
        return f"no second library bounds secure sums; Renyi accounting, looser: {spent.renyi:.4g}"
    verdict = "agrees" if spent.agree else "DISAGREES, take part in nothing and tell the consortium"
    return f"a second library finds {spent.witness:.4g} and {verdict}; Renyi accounting, looser: {spent.renyi:.4g}"


def _book(path: Path) -> tuple[Book, int]:
    try:
        records, _ = read_chain(path.read_bytes())
    except OSError as error:
        raise DataRefused(f"no ledger can be read at {path}; name the folder that holds ledger.jsonl") from error
    delta = records[0][0].get("delta") if records else None
    if not (isinstance(delta, float) and 0 < delta < 1):
        raise LedgerCorrupt("the ledger does not begin with its delta; restore the file from a backup")
    book = Book(delta)
    for body, digest in records:
        book.apply(body, digest)
    return book, len(records)


def _lines(book: Book) -> Iterator[Line]:
    """One line per plan and stage, in the order they first appear."""
    groups: dict[tuple[str, str], list[Reservation]] = {}
    for reservation in book.reservations:
        plan, stage, *_ = [*reservation.purpose.split("/"), ""]
        groups.setdefault((plan, stage), []).append(reservation)
    for (plan, stage), found in groups.items():
        released = sum(one.digest in book.released for one in found)
        abandoned = sum(one.digest in book.abandoned for one in found)
        spent = epsilon([one.event for one in found], book.delta)
        yield Line(plan, stage, len(found), released, abandoned, spent)
