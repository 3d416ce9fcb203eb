"""The one door out of a site: a closed list of messages, each paid for and written down before it is handed over.

Nothing else in the project makes a `Cleared`, and the transport sends nothing but a `Cleared`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, assert_never

import numpy as np

from privacy.errors import EgressRefused, LedgerCorrupt, PrivacyError
from privacy.events import RandomisedResponse, SampledGaussian, SecureSummed, Unbounded, to_record
from privacy.ledger import Ledger, Reservation, sync_folder
from privacy.messages import Census as Census
from privacy.messages import End as End
from privacy.messages import Fit as Fit
from privacy.messages import Masked as Masked
from privacy.messages import Message as Message
from privacy.messages import Ready as Ready
from privacy.messages import Refusal as Refusal
from privacy.messages import RefusalCode as RefusalCode
from privacy.messages import SumWords as SumWords
from privacy.messages import Update as Update
from privacy.messages import Vote as Vote
from privacy.signing import unverified
from privacy.sum_words import STEPS, keys_in, letters_in, shares_in, story_in

Header = Mapping[str, str | int | float]
LARGEST: Final = 1 << 28                                     # numbers in one update, 1 GiB of float32
VOTE_STAGE: Final = "copies"                                 # of the event that pays for a vote
CENSUS_STAGE: Final = "census"                               # of the event that pays for the counts
FIT_STAGE: Final = "fit"                                     # of the event that pays for one number on a stage
ENDS: Final[tuple[End, ...]] = ("before", "after")           # of a stage; each has one number
LARGEST_FIT: Final = 10**15                                  # whole units, either way: exact as float64 and as JSON
LARGEST_COUNT: Final = 10**9                                 # of patients in one bin, either way
MOST_VOTES: Final = 2                                        # rounds per plan: more would let a server ask its way to a patient
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = object()


@dataclass(frozen=True, eq=False)
class Cleared:
    """A message that passed the egress: what a transport may send, as it stands.

    Only `Egress.send` makes one. Python cannot enforce that against code in the same process; the private key catches
    accidents, and tests/privacy/test_egress.py looks for constructions elsewhere in the source.
    """

    header: Header
    values: np.ndarray | None                                # (n,) float32, or uint32 under masks; read-only
    key: InitVar[object]

    def __post_init__(self, key: object) -> None:
        if key is not _KEY:
            raise EgressRefused("only the egress clears a message; send it through Egress.send")


def purpose_of(plan: str, stage: str, round: int, attempt: int = 0) -> str:
    """What a round's reservation says it is for. One purpose, one value. `attempt`: of a secure sum, from 1."""
    return f"{plan}/{stage}/{round}/{attempt}" if attempt else f"{plan}/{stage}/{round}"


def fit_purpose(plan: str, stage: str, end: End) -> str:
    """What the reservation says that pays for the number at one end of `stage`."""
    return purpose_of(plan, f"{FIT_STAGE}-{stage}", ENDS.index(end) + 1)


class Egress:
    """Checks, charges and writes down everything that leaves one site.

    Guarantees, each before `send` returns
     1. The message is of a type of the closed list, with fields of its schema; a header holds nothing measured on patients.
     2. An update is finite float32 (n,), numbers under masks are uint32 (n,), of exactly the expected size, and the reservation
        was made in this ledger for exactly this plan, stage, round and, for a secure sum, attempt.
     3. One reservation releases one value, across restarts. The same bytes again are free: nothing new is learnt.
     4. The audit log on disk has the time, the header, the value's SHA-256, what was charged, and the ledger's head.

    A log that names a ledger head the ledger does not have means that the ledger lost records: LedgerCorrupt.
    Without a ledger (it is busy or broken) only refusals leave. Not covered: when a message leaves, which depends on how
    many patients were drawn, and that a refusal happened.
    """

    def __init__(self, ledger: Ledger | None, audit_path: Path, site: str) -> None:
        self._ledger, self._path, self._site = ledger, audit_path, site
        _require(_matches(_NAME, site), "a site's name is lower-case letters, digits and dashes")
        if ledger is not None:
            refuse_lost_records(ledger.knows, audit_path)

    def send(self, message: Message, expected_size: int | None = None) -> Cleared:
        """Clear one message, or raise EgressRefused (a privacy error of the ledger passes through) and let nothing out."""
        _require(type(message) in Message.__args__, "only the messages of the closed list leave")
        _require(message.site == self._site, "a site speaks for itself only")
        _require(isinstance(message, Refusal) or self._ledger is not None, "without its ledger a site can only refuse")
        match message:
            case Ready():
                _require(_matches(_SHA256, message.plan), "the plan is named by its digest")
                return self._cleared({"kind": "ready", "site": self._site, "plan": message.plan}, None, None)
            case Refusal():
                _require(type(message.code) is RefusalCode, "a refusal is one of the fixed codes")
                header: Header = {"kind": "refusal", "site": self._site, "code": message.code.value}
                return self._cleared({**header, "exit_code": message.code.exit_code}, None, None)
            case Update():
                return self._update(message, expected_size)
            case Vote():
                return self._vote(message, expected_size)
            case SumWords():
                return self._sum_words(message)
            case Masked():
                return self._masked(message, expected_size)
            case Census():
                return self._census(message, expected_size)
            case Fit():
                return self._fit(message)
            case _:
                assert_never(message)

    def _update(self, update: Update, expected_size: int | None) -> Cleared:
        _require(_matches(_SHA256, update.start), "what the update starts from is named by its digest")
        values = _checked(update.values, expected_size, np.dtype("<f4"))
        _require(bool(np.isfinite(values).all()), "the update holds NaN or infinite numbers; lower the learning rate")
        return self._paid("update", update, {"start": update.start}, purpose_of(*_round_of(update)), values)

    def _masked(self, masked: Masked, expected_size: int | None) -> Cleared:
        _require(_matches(_SHA256, masked.start), "what the numbers start from is named by its digest")
        purpose = purpose_of(*_round_of(masked), _attempt_of(masked))
        _require(isinstance(masked.reservation.event, SecureSummed), "the charge was not for a secure sum")
        values = _checked(masked.values, expected_size, np.dtype("<u4"))
        return self._paid("masked", masked, {"start": masked.start, "attempt": masked.attempt}, purpose, values)

    def _paid(self, kind: str, message: Update | Masked, more: Header, purpose: str, values: np.ndarray) -> Cleared:
        """Bind the values to the reservation that paid for them, and clear them."""
        ledger = self._ledger
        if ledger is None:
            raise EgressRefused("without its ledger a site can only refuse; free the ledger and ask again")
        _require(type(message.reservation) is Reservation, "numbers need the reservation that paid for them")
        event = message.reservation.event
        _require(message.reservation.purpose == purpose, "the reservation was made for something else")
        _require(not isinstance(event, Unbounded) and event.stage == message.stage, "the charge was for another stage")
        sha256 = hashlib.sha256(values.tobytes()).hexdigest()
        ledger.release(message.reservation, sha256)
        header: Header = {
            "kind": kind,
            "site": self._site,
            "plan": message.plan,
            "stage": message.stage,
            "round": message.round,
            **more,
            "size": len(values),
            "sha256": sha256,
            "epsilon": ledger.epsilon,                       # a function of the plan and of how often it was run
            "ledger_head": ledger.head,
        }
        return self._cleared(header, values, message.reservation)

    def _sum_words(self, words: SumWords) -> Cleared:
        plan, stage, number = _round_of(words)
        context = purpose_of(plan, stage, number, _attempt_of(words))
        _require(words.step in STEPS and words.step != "numbers", "words belong to a secure sum's steps without numbers")
        match words.step:
            case "keys" | "story":
                envelope = keys_in(words.said) if words.step == "keys" else story_in(words.said)
                signed = json.loads(unverified(envelope))
                _require((signed["site"], signed["context"]) == (self._site, context), "this was signed for another sum")
            case "letters":
                letters_in(words.said)
            case _:
                shares_in(words.said)
        header: Header = {
            "kind": "sum", "site": self._site, "plan": plan, "stage": stage, "round": number, "attempt": words.attempt,
            "step": words.step, "said": words.said,
        }  # fmt: skip
        return self._cleared(header, None, None)

    def _vote(self, vote: Vote, expected_size: int | None) -> Cleared:
        ledger = self._ledger
        if ledger is None:
            raise EgressRefused("without its ledger a site can only refuse; free the ledger and ask again")
        _require(_matches(_SHA256, vote.plan), "the plan is named by its digest")
        _require(_matches(_SHA256, vote.candidates), "what was voted on is named by its digest")
        _require(type(vote.round) is int and 1 <= vote.round <= MOST_VOTES, f"there are {MOST_VOTES} votes per plan")
        _require(type(vote.bits) is str and set(vote.bits) <= {"0", "1"}, "a vote is a 0 or a 1 for each candidate")
        _require(type(expected_size) is int and 0 < expected_size == len(vote.bits), "a vote has one bit for each candidate")
        _require(type(vote.reservation) is Reservation, "a vote needs the reservation that paid for it")
        _require(vote.reservation.purpose == purpose_of(vote.plan, VOTE_STAGE, vote.round), "the charge was for something else")
        _require(isinstance(vote.reservation.event, RandomisedResponse), "the charge was not for a vote")
        sha256 = hashlib.sha256(f"{vote.candidates}/{vote.bits}".encode()).hexdigest()
        ledger.release(vote.reservation, sha256)
        header: Header = {
            "kind": "vote",
            "site": self._site,
            "plan": vote.plan,
            "candidates": vote.candidates,
            "round": vote.round,
            "bits": vote.bits,
            "epsilon": ledger.epsilon,
            "ledger_head": ledger.head,
        }
        return self._cleared(header, None, vote.reservation)

    def _census(self, census: Census, expected_size: int | None) -> Cleared:
        ledger = self._ledger
        if ledger is None:
            raise EgressRefused("without its ledger a site can only refuse; free the ledger and ask again")
        _require(_matches(_SHA256, census.plan), "the plan is named by its digest")
        _require(type(census.counts) is tuple and all(type(n) is int for n in census.counts), "a census is whole numbers")
        _require(all(abs(n) <= LARGEST_COUNT for n in census.counts), "no hospital has so many patients")
        _require(type(expected_size) is int and 0 < expected_size == len(census.counts), "a census has one count for each bin")
        _require(type(census.reservation) is Reservation, "a census needs the reservation that paid for it")
        _require(census.reservation.purpose == purpose_of(census.plan, CENSUS_STAGE, 1), "the charge was for something else")
        event = census.reservation.event
        _require(isinstance(event, SampledGaussian) and event.stage == CENSUS_STAGE, "the charge was not for a census")
        counts = " ".join(str(count) for count in census.counts)
        ledger.release(census.reservation, hashlib.sha256(counts.encode()).hexdigest())
        header: Header = {
            "kind": "census",
            "site": self._site,
            "plan": census.plan,
            "counts": counts,
            "epsilon": ledger.epsilon,
            "ledger_head": ledger.head,
        }
        return self._cleared(header, None, census.reservation)

    def _fit(self, fit: Fit) -> Cleared:
        ledger = self._ledger
        if ledger is None:
            raise EgressRefused("without its ledger a site can only refuse; free the ledger and ask again")
        _require(_matches(_SHA256, fit.plan), "the plan is named by its digest")
        _require(_matches(_NAME, fit.stage), "a stage's name is one of the plan's")
        _require(type(fit.end) is str and fit.end in ENDS, "a stage has a number before it and one after it")
        _require(_matches(_SHA256, fit.start), "what was measured is named by its digest")
        _require(type(fit.units) is int and abs(fit.units) <= LARGEST_FIT, "a fit is one whole number of a stated size")
        _require(type(fit.reservation) is Reservation, "a fit needs the reservation that paid for it")
        purpose, event = fit_purpose(fit.plan, fit.stage, fit.end), fit.reservation.event
        _require(fit.reservation.purpose == purpose, "the charge was for something else")
        _require(isinstance(event, SampledGaussian) and event.stage == FIT_STAGE, "the charge was not for a fit")
        ledger.release(fit.reservation, hashlib.sha256(f"{fit.start}/{fit.units}".encode()).hexdigest())
        header: Header = {
            "kind": "fit",
            "site": self._site,
            "plan": fit.plan,
            "stage": fit.stage,
            "end": fit.end,
            "start": fit.start,
            "units": fit.units,
            "epsilon": ledger.epsilon,
            "ledger_head": ledger.head,
        }
        return self._cleared(header, None, fit.reservation)

    def _cleared(self, header: Header, values: np.ndarray | None, paid: Reservation | None) -> Cleared:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "header": {name: _noted(name, value) for name, value in header.items()},
            "charged": to_record(paid.event) if paid else None,
            "reservation": paid.digest if paid else None,
            "ledger_head": self._ledger.head if self._ledger else None,
        }
        _append(self._path, (json.dumps(line, sort_keys=True, allow_nan=False) + "\n").encode())
        return Cleared(MappingProxyType(dict(header)), values, _KEY)


def _checked(values: object, expected_size: int | None, dtype: np.dtype[Any]) -> np.ndarray:
    """A read-only copy, so that nothing changes between the check and the transport."""
    if not (type(values) is np.ndarray and values.dtype == dtype and values.ndim == 1):
        raise EgressRefused(f"numbers leave as one array of {dtype} (n,); flatten it first")
    _require(type(expected_size) is int and 0 < expected_size <= LARGEST, "say how many numbers there should be")
    _require(len(values) == expected_size, "there are more or fewer numbers than the stage's trainable tensors have")
    copy = np.array(values, dtype=dtype, copy=True)
    copy.flags.writeable = False
    return copy


def _round_of(message: Update | Masked | SumWords) -> tuple[str, str, int]:
    """(plan, stage, round) that a message names."""
    _require(_matches(_SHA256, message.plan), "the plan is named by its digest")
    _require(_matches(_NAME, message.stage), "a stage's name is one of the plan's")
    _require(type(message.round) is int and message.round >= 1, "a round is a whole number from 1")
    return message.plan, message.stage, message.round


def _attempt_of(message: Masked | SumWords) -> int:
    _require(type(message.attempt) is int and message.attempt >= 1, "an attempt is a whole number from 1")
    return message.attempt


def _noted(name: str, value: str | float) -> str | float:
    """A header's value for the audit log: secrets that open a sum are there by their digest alone."""
    if name == "said":
        return hashlib.sha256(str(value).encode()).hexdigest()
    return str(value) if value == float("inf") else value


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return type(text) is str and pattern.fullmatch(text) is not None


def _require(holds: bool, rule: str) -> None:
    if holds is not True:
        raise EgressRefused(f"this may not leave the site: {rule}")


def refuse_lost_records(knows: Callable[[str], bool], path: Path) -> None:
    """Raise LedgerCorrupt if the audit log names a head that the ledger never had: it lost records, or is an old copy."""
    whole_lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(whole_lines, start=1):
        try:
            head = json.loads(line)["ledger_head"]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerCorrupt(f"line {number} of the audit log cannot be read; restore it from a backup") from error
        if head is not None and not knows(head):
            raise LedgerCorrupt(f"the ledger lost what line {number} of the audit log was paid with; restore the ledger")


def _append(path: Path, line: bytes) -> None:
    """Add one line, on disk when it returns. A line torn by a crash goes first: its `send` never returned, so nothing left."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # A refusal for a busy ledger is written beside the ledger's holder, so the log has its own short lock.
            fcntl.flock(file, fcntl.LOCK_EX)
            os.ftruncate(file, _whole_lines(file))
            if not os.write(file, line) == len(line):
                raise PrivacyError("the audit log could not be written; free disk space and start the site again")
            os.fsync(file)
        finally:
            os.close(file)
        sync_folder(path.parent)
    except OSError as error:
        raise PrivacyError("the audit log could not be written; free disk space and start the site again") from error


def _whole_lines(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    return os.pread(file, size, 0).rfind(b"\n") + 1
