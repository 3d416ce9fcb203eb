"""Why a site does not answer: any error becomes one fixed word for the server and its own words for the operator."""

from __future__ import annotations

import contextlib
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from braing3n_core.errors import Braing3nError, DataRefused, IntegrityError, PlanRefused, ReplyRefused, UsageError
from privacy.egress import Cleared, Egress, Refusal, RefusalCode
from privacy.errors import BudgetExhausted, EgressRefused, LedgerBusy, MechanismRefused, PrivacyError, SumRefused


class StaleRequest(Braing3nError):
    """The run went past this round; an answer to it now would be budget for nothing."""


_CODES: dict[type[BaseException], RefusalCode] = {           # the first that fits
    StaleRequest: RefusalCode.STALE_REQUEST,
    UsageError: RefusalCode.BAD_SETTINGS,
    PlanRefused: RefusalCode.PLAN_REFUSED,
    DataRefused: RefusalCode.DATA_REFUSED,
    ReplyRefused: RefusalCode.REQUEST_REFUSED,
    IntegrityError: RefusalCode.INTEGRITY,
    BudgetExhausted: RefusalCode.BUDGET_EXHAUSTED,
    LedgerBusy: RefusalCode.LEDGER_BUSY,
    SumRefused: RefusalCode.SUM_REFUSED,
    MechanismRefused: RefusalCode.MECHANISM_REFUSED,
    EgressRefused: RefusalCode.EGRESS_REFUSED,
    PrivacyError: RefusalCode.INTEGRITY,
    KeyboardInterrupt: RefusalCode.INTERRUPTED,
}


def refuse(site: str, folder: Path, error: BaseException) -> Cleared:
    """Any error as the one fixed word that may leave; its own words go to <folder>/site.log, for the operator's eyes only."""
    note(folder, "".join(traceback.format_exception(error)))
    return Egress(None, folder / "audit.jsonl", site).send(Refusal(site, code_of(error)))


def code_of(error: BaseException) -> RefusalCode:
    """The fixed code of any error, `internal` for one nobody foresaw."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return RefusalCode.INTERNAL


def note(folder: Path, text: str) -> None:
    """Append to the site's own log, which only its owner can read. A full disk must not turn a refusal into a traceback."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / "site.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, f"{datetime.now(UTC).isoformat(timespec='seconds')} {text.rstrip()}\n".encode())
        finally:
            os.close(file)
