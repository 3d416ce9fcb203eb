"""The closed list of what may leave a site. What each must be to leave, and what it costs, is the egress's to check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np

from privacy.ledger import Reservation
from privacy.sum_words import Step

End = Literal["before", "after"]                             # of a stage


class RefusalCode(StrEnum):
    """Everything a site may say about why it does not answer. A fixed word: no text, no number, nothing measured."""

    BAD_SETTINGS = "bad-settings"                            # the site's own settings
    PLAN_REFUSED = "plan-refused"                            # another plan, or a stage or round that it does not have
    DATA_REFUSED = "data-refused"
    BUDGET_EXHAUSTED = "budget-exhausted"
    LEDGER_BUSY = "ledger-busy"
    INTEGRITY = "integrity"                                  # ledger, audit log, prior or kept update is not what it was
    MECHANISM_REFUSED = "mechanism-refused"
    EGRESS_REFUSED = "egress-refused"                        # what training made may not leave
    REQUEST_REFUSED = "request-refused"                      # the request's values do not fit the model
    SUM_REFUSED = "sum-refused"                              # this secure sum cannot go on here; one with fresh keys may
    STALE_REQUEST = "stale-request"                          # the run went past this round
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"

    @property
    def exit_code(self) -> int:
        """The documented exit code of a command that ends for this reason."""
        return _EXIT_CODES[self]


_EXIT_CODES: Final[dict[RefusalCode, int]] = {
    RefusalCode.BAD_SETTINGS: 2,
    RefusalCode.PLAN_REFUSED: 3,
    RefusalCode.DATA_REFUSED: 3,
    RefusalCode.BUDGET_EXHAUSTED: 5,
    RefusalCode.LEDGER_BUSY: 6,
    RefusalCode.INTEGRITY: 6,
    RefusalCode.MECHANISM_REFUSED: 6,
    RefusalCode.EGRESS_REFUSED: 6,
    RefusalCode.REQUEST_REFUSED: 1,
    RefusalCode.SUM_REFUSED: 1,
    RefusalCode.STALE_REQUEST: 1,
    RefusalCode.INTERRUPTED: 130,
    RefusalCode.INTERNAL: 1,
}


@dataclass(frozen=True)
class Ready:
    """This site has the plan and can start. Constants only; free."""

    site: str
    plan: str                                                # digest


@dataclass(frozen=True)
class Refusal:
    """This site does not answer, for one of the fixed reasons.

    Free, and not differentially private: that something failed is told without noise. After a failure that may depend on
    patients, the site gives its reservation up (Ledger.abandon), so a server learns at most one word per charge.
    """

    site: str
    code: RefusalCode


@dataclass(frozen=True, eq=False)
class Update:
    """What one round of private training changed, (n,) float32. Paid for by `reservation`."""

    site: str
    plan: str                                                # digest
    stage: str
    round: int
    start: str                                               # SHA-256 of the values the server sent, hex
    reservation: Reservation
    values: np.ndarray


@dataclass(frozen=True)
class Vote:
    """Which candidates of a release the site votes against, noisy: one 0 or 1 each. Paid for by `reservation`."""

    site: str
    plan: str                                                # digest
    candidates: str                                          # digest of what was voted on
    round: int
    reservation: Reservation
    bits: str


@dataclass(frozen=True)
class Census:
    """How many patients are in each bin of each variable, noised whole numbers. Paid for by `reservation`."""

    site: str
    plan: str                                                # digest
    reservation: Reservation
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """How well the model fits the site's patients at one end of a stage: a noised sum in whole units of one clipped value each.

    Paid for by `reservation`.
    """

    site: str
    plan: str                                                # digest
    stage: str
    end: End
    start: str                                               # SHA-256 of the values the server sent, hex
    reservation: Reservation
    units: int


@dataclass(frozen=True)
class SumWords:
    """What a step of a secure sum says in words: keys, letters, who took part, shares of secrets (privacy/sum_words.py).

    Free: made of random keys and of who took part, never of patients. What shares open was paid for by each `Masked`.
    """

    site: str
    plan: str                                                # digest
    stage: str
    round: int
    attempt: int
    step: Step
    said: str


@dataclass(frozen=True, eq=False)
class Masked:
    """A site's noisy whole numbers under its masks, (n,) uint32. Paid for by `reservation`, as if the sum were opened."""

    site: str
    plan: str                                                # digest
    stage: str
    round: int
    attempt: int
    start: str                                               # SHA-256 of the values the server sent, hex
    reservation: Reservation
    values: np.ndarray


Message = Ready | Refusal | Update | Vote | Census | Fit | SumWords | Masked
