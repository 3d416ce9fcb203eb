"""What a check of `braing3n-site doctor` found, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "look", "refused"]                     # go on; somebody should look; will not work


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    check: str
    state: State
    result: str
    fix: str = ""                                            # what to do; empty if nothing


def table(findings: Sequence[Finding]) -> str:
    """Check, result, how to fix: for a person."""
    rows = [("", "CHECK", "RESULT", "HOW TO FIX"), *((f.state, f.check, f.result, f.fix) for f in findings)]
    wide = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = []
    for state, check, result, fix in rows:
        lines.append(f"{state:<{wide[0]}}  {check:<{wide[1]}}  {result}" + (f"  ->  {fix}" if fix else ""))
    return "\n".join(lines)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
