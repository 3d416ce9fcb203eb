"""The ledger: what was spent on this site's patients, on disk before anything is trained with it.

One line is one record, and each record's digest covers the digest before it. The file belongs on a local disk of the site.
`Book` holds the rules and knows no file; `Ledger` holds the file and its lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from privacy.accountant import epsilon
from privacy.errors import BudgetExhausted, LedgerBusy, LedgerCorrupt, MechanismRefused
from privacy.events import Event, from_record, to_record

Body = Mapping[str, object]
_VERSION: Final = 1
START: Final = hashlib.sha256(b"braing3n ledger").hexdigest()


@dataclass(frozen=True)
class Reservation:
    """Budget that was spent on one purpose. Handed out by a Ledger only; `digest` is its record's place in that chain."""

    sequence: int
    event: Event
    purpose: str
    digest: str


def chained(previous: str, body: Body) -> str:
    """SHA-256 over the head before and the record in canonical JSON, hex."""
    return hashlib.sha256((previous + _canonical(body)).encode()).hexdigest()


def written(body: Body, digest: str) -> bytes:
    """The record as one line. Law: read_chain(written(b, chained(head, b))) gives b and its digest back."""
    return (_canonical({"digest": digest, "record": body}) + "\n").encode()


def read_chain(raw: bytes) -> tuple[list[tuple[Body, str]], bytes]:
    """Every record with its digest, and what a crash in the middle of the last append left behind.

    Raises LedgerCorrupt on any line that is not byte for byte what `written` made at that place of the chain. Only a last
    line that has no end AND is not JSON is a remnant: an append cut short never parses, an edited record does.
    """
    lines = raw.split(b"\n")
    remnant = lines.pop()
    if remnant and _parsed(remnant) is not None:             # all but the line's end reached the disk: it was spent
        lines, remnant = [*lines, remnant], b""
    records: list[tuple[Body, str]] = []
    head = START
    for number, line in enumerate(lines, start=1):
        body = _parsed(line)
        head = chained(head, body) if body is not None else head
        if body is None or written(body, head) != line + b"\n":
            raise LedgerCorrupt(f"line {number} of the ledger is not what was written there; restore the file from a backup")
        records.append((body, head))
    return records, remnant


@dataclass
class Book:
    """What a chain of records says. Rules, without a file.

    * What was reserved stays spent, whatever comes after it.
    * A reservation releases one value: that value again is free, another one is refused.
    * A reservation that was given up releases nothing.
    """

    delta: float
    heads: list[str] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    released: dict[str, str] = field(default_factory=dict)   # reservation digest -> SHA-256 of the value
    abandoned: set[str] = field(default_factory=set)         # reservation digests

    @property
    def head(self) -> str:
        """Digest of the last record, hex."""
        return self.heads[-1] if self.heads else START

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that was paid for, in order."""
        return tuple(reservation.event for reservation in self.reservations)

    def afford(self, event: Event, limit: float) -> None:
        """Raise BudgetExhausted unless `event` on top of everything before it stays within `limit`. NaN never does."""
        total = epsilon([*self.events, event], self.delta)
        if not total <= limit:
            spent = epsilon(self.events, self.delta)
            left = max(0.0, limit - spent) if spent < limit else 0.0
            raise BudgetExhausted(
                f"this needs epsilon={total - spent if spent < total else total:.4g} more, {left:.4g} of {limit:.4g} left; "
                "ask the data steward for a new agreement or plan fewer rounds"
            )

    def may_release(self, reservation: Reservation, sha256: str) -> bool:
        """Whether a new record is needed; False if this very value was released before. Raises MechanismRefused otherwise."""
        if reservation not in self.reservations:
            raise MechanismRefused("this reservation is not in this site's ledger; reserve here before training")
        if reservation.digest in self.abandoned:
            raise MechanismRefused("this reservation was given up; reserve again before training")
        before = self.released.get(reservation.digest)
        if before not in (None, sha256):
            raise MechanismRefused("this reservation already released another value; every value needs its own reservation")
        return before is None

    def apply(self, body: Body, digest: str) -> None:
        """Take in one record. Raises LedgerCorrupt on a record that follows no rule of this version."""
        match body:
            case {"kind": "opened", "version": int(version), "delta": float(delta)} if version == _VERSION and not self.heads:
                if not delta == self.delta:
                    raise MechanismRefused(
                        f"this ledger counts at delta={delta:g}, not {self.delta:g}; one group of patients has one delta"
                    )
            case {"kind": "reserved", "sequence": int(sequence), "purpose": str(purpose), "event": dict(event)}:
                self.reservations.append(Reservation(sequence, from_record(event), purpose, digest))
            case {"kind": "released", "reservation": str(reservation), "sha256": str(sha256)}:
                self.released[reservation] = sha256
            case {"kind": "abandoned", "reservation": str(reservation)}:
                self.abandoned.add(reservation)
            case {"kind": "recovered", "bytes": int()}:
                pass
            case _:
                raise LedgerCorrupt("a ledger record is unknown to this version; use the version that wrote it")
        self.heads.append(digest)


class Ledger:
    """One site's ledger, open and locked.

    Guarantees
     * `reserve` returns after the charge is on disk, so a crash costs budget and never leaks it.
     * A refused `reserve` writes nothing. NaN, as limit or as cost, is refused.
     * One holder at a time: a second opener, in this process or another, gets LedgerBusy; so does a forked child.
     * An edited record, or one missing before the last, gives LedgerCorrupt.
     * A last line torn by a crash is dropped and noted: its `reserve` had not returned, so nothing was trained with it.

    Not covered: removing whole records from the END leaves a shorter, valid chain. The audit log names ledger heads
    (privacy/egress.py), which shows the loss of every record up to the last message sent; an older copy of BOTH files is
    whole by itself, and shown only by a head kept elsewhere (privacy/ledger_head.py). One thread per ledger.

    | limit    | event              | result                                        |
    |----------|--------------------|-----------------------------------------------|
    | finite   | bounded, affords   | charged                                       |
    | finite   | NonPrivate, ...    | BudgetExhausted (costs infinity)              |
    | infinite | any                | charged; for rehearsals, which callers decide |
    | NaN      | any                | BudgetExhausted                               |
    """

    def __init__(self, path: Path, delta: float) -> None:
        if not 0 < delta < 1:
            raise MechanismRefused(f"delta {delta} must be between 0 and 1; below 1 / (10 x patients) is usual")
        self.delta = delta
        self._book = Book(delta)
        self._process = os.getpid()
        self._file: int | None = _locked(path)
        self._whole = True                                   # the file ends with a record that is known to be on disk
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that was paid for, in order; released, given up or lost in a crash alike."""
        return self._book.events

    @property
    def epsilon(self) -> float:
        """Epsilon spent on one patient by all events together, at the ledger's delta."""
        return epsilon(self._book.events, self.delta)

    @property
    def head(self) -> str:
        """Digest of the last record, hex: it stands for the whole history."""
        return self._book.head

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Every reservation ever made, in order."""
        return tuple(self._book.reservations)

    @property
    def heads(self) -> tuple[str, ...]:
        """Digest of every record, in order."""
        return tuple(self._book.heads)

    def knows(self, head: str) -> bool:
        """Whether `head` was this ledger's head at some time."""
        return head in self._book.heads

    def afford(self, event: Event, limit: float) -> None:
        """Raise BudgetExhausted if `reserve` would. Spends nothing."""
        self._book.afford(event, limit)

    def reserve(self, event: Event, purpose: str, limit: float) -> Reservation:
        """Spend `event` on `purpose`. On disk when it returns; raises BudgetExhausted and writes nothing over `limit`."""
        self._book.afford(event, limit)
        self._append({"kind": "reserved", "purpose": purpose, "event": to_record(event)})
        return self._book.reservations[-1]

    def paid_once(self, event: Event, purpose: str, limit: float) -> tuple[Reservation, bool]:
        """What pays for an answer that is given once (released, standing or new), and whether it was given already."""
        made = next((r for r in self.reservations if r.purpose == purpose and self.released(r) is not None), None)
        return made or self.standing(event, purpose) or self.reserve(event, purpose, limit), made is not None

    def standing(self, event: Event, purpose: str) -> Reservation | None:
        """The latest reservation of exactly this, unless it was given up.

        A run that was killed takes its own reservation up again: it may train a second time, because one reservation
        releases one value and the first was never seen.
        """
        for reservation in reversed(self._book.reservations):
            if (reservation.event, reservation.purpose) == (event, purpose):
                return None if reservation.digest in self._book.abandoned else reservation
        return None

    def released(self, reservation: Reservation) -> str | None:
        """SHA-256 of the value that `reservation` released, if any."""
        return self._book.released.get(reservation.digest)

    def release(self, reservation: Reservation, sha256: str) -> None:
        """Bind `reservation` to the one value it releases; on disk when it returns. Binding it to the same value is free."""
        if self._book.may_release(reservation, sha256):
            self._append({"kind": "released", "reservation": reservation.digest, "sha256": sha256})

    def abandon(self, reservation: Reservation) -> None:
        """Give `reservation` up: it stays spent and releases nothing, so that each failure a server sees has cost a charge.

        One that released its value keeps it: what is out is out, and may be sent again.
        """
        over = self._book.abandoned | self._book.released.keys()
        if reservation in self._book.reservations and reservation.digest not in over:
            self._append({"kind": "abandoned", "reservation": reservation.digest})

    def close(self) -> None:
        """Give the lock back. Closing twice is allowed."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        file = self._held()
        raw = b"".join(iter(lambda: os.read(file, 1 << 20), b""))
        records, remnant = read_chain(raw)
        for body, digest in records:
            self._book.apply(body, digest)
        if remnant:
            os.ftruncate(file, len(raw) - len(remnant))
        elif raw and not raw.endswith(b"\n"):
            _write(file, b"\n")
        if not records:
            # The name makes two ledgers with one history differ, so a reservation of one is not found in the other.
            self._append({"kind": "opened", "version": _VERSION, "delta": self.delta, "name": os.urandom(16).hex()})
        if remnant:
            self._append({"kind": "recovered", "bytes": len(remnant)})

    def _append(self, content: Body) -> None:
        file = self._held()
        if not self._whole:
            raise LedgerCorrupt("an earlier write to the ledger failed; free disk space and start the site again")
        body: Body = {"sequence": len(self._book.heads), **content}
        digest = chained(self.head, body)
        self._whole = False                                  # whatever interrupts the next lines
        try:
            _write(file, written(body, digest))
        except OSError as error:
            raise LedgerCorrupt("the ledger could not be written; free disk space and start the site again") from error
        self._whole = True
        self._book.apply(body, digest)

    def _held(self) -> int:
        if self._file is None or self._process != os.getpid():
            raise LedgerBusy("this ledger is closed, or belongs to the process this one was forked from; open it again")
        return self._file


def _locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerCorrupt("the ledger cannot be opened; check its folder and permissions") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise LedgerBusy("another process holds this site's ledger; wait until it ends, two cannot spend one budget") from error
    sync_folder(path.parent)
    return file


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)


def sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, as fsync of the file makes its content."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _parsed(line: bytes) -> Body | None:
    """The record of one line; None if it is not JSON, an empty one if it is some other JSON."""
    try:
        value = json.loads(line)
        _canonical(value)
    except (ValueError, RecursionError):
        return None
    record = value.get("record") if isinstance(value, dict) else None
    return record if isinstance(record, dict) else {}
