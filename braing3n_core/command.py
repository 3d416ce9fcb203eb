"""How every command ends: a refusal is one line and its documented exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from braing3n_core import console
from braing3n_core.errors import INTERRUPTED, OK, Braing3nError, exit_code
from privacy.errors import PrivacyError

EXIT_CODES = """Exit codes: 0 done, 1 unexpected, 2 usage, 3 data or plan refused, 4 gate blocked, 5 privacy budget exhausted,
6 signature or integrity, 7 waiting for sites, 130 interrupted."""


def run(app: Callable[..., object], name: str) -> NoReturn:
    """Run a typer application as `name` and leave with the documented exit code."""
    try:
        app(prog_name=name)
    except (Braing3nError, PrivacyError) as error:
        console.note(f"{name}: {error}")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        console.note(f"{name}: interrupted; the same command goes on where it was stopped")
        sys.exit(INTERRUPTED)
    sys.exit(OK)
