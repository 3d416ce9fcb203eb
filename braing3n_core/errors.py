"""Every refusal of the project outside `privacy/`, drawn once, each with the exit code that scripts rely on.

    Exception
    ├── privacy.errors.PrivacyError          5 budget exhausted, 6 integrity (see exit_code)
    └── Braing3nError                        1 unexpected
        ├── UsageError                       2
        ├── PlanRefused                      3
        ├── DataRefused                      3
        ├── ReplyRefused                     1 (never ends a run: the round goes on without that reply)
        ├── client.refusal.StaleRequest      1 (leaves the site as the code stale-request)
        ├── GateBlocked                      4
        ├── IntegrityError                   6
        └── WaitingForSites                  7

A message says what is wrong, why it matters and what to do next, in one line.
"""

from __future__ import annotations

from privacy.errors import BudgetExhausted, PrivacyError

OK = 0
UNEXPECTED = 1
USAGE = 2
REFUSED = 3
BLOCKED = 4
EXHAUSTED = 5
INTEGRITY = 6
WAITING = 7
INTERRUPTED = 130


class Braing3nError(Exception):
    """A refusal the project foresaw. The text is one line for a person: what, why, what next."""

    exit_code = UNEXPECTED


class UsageError(Braing3nError):
    """The command line does not say what to do."""

    exit_code = USAGE


class PlanRefused(Braing3nError):
    """The plan cannot be run as it stands."""

    exit_code = REFUSED


class DataRefused(Braing3nError):
    """A folder, table or image cannot be used."""

    exit_code = REFUSED


class ReplyRefused(Braing3nError):
    """A site's reply is not what the round asked for; the round goes on without it."""


class GateBlocked(Braing3nError):
    """A release may not be published."""

    exit_code = BLOCKED


class IntegrityError(Braing3nError):
    """A file or signature is not what it claims to be."""

    exit_code = INTEGRITY


class WaitingForSites(Braing3nError):
    """Too few sites answered for the run to go on."""

    exit_code = WAITING


def exit_code(error: BaseException) -> int:
    """The documented exit code of any error, 1 for one nobody foresaw."""
    match error:
        case Braing3nError():
            return error.exit_code
        case BudgetExhausted():
            return EXHAUSTED
        case PrivacyError():
            return INTEGRITY
        case KeyboardInterrupt() | SystemExit():             # Flower's own answer to a signal is the second, with code 0
            return INTERRUPTED
        case _:
            return UNEXPECTED
