"""A log for programs: one JSON object a line, each with its time and the name of what happened. Nothing decides by it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

FILE = "journal.jsonl"


def journal(folder: Path, event: str, facts: Mapping[str, object]) -> None:
    """Append one line to <folder>/journal.jsonl, which only its owner can read.

    A number that JSON does not know becomes a word. A disk that is full must not stop a round: the line is lost then, and the
    ledger and the audit log, which do stop it, say what counted.
    """
    when = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
    line = {**when, **{key: _plain(value) for key, value in facts.items() if key not in when}}
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, (json.dumps(line, allow_nan=False) + "\n").encode())
        finally:
            os.close(file)


def journalled(folder: Path, say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, with every line in the journal too."""

    def both(text: str) -> None:
        journal(folder, "said", {"text": text})
        say(text)

    return both


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if not math.isfinite(value):
            return "not a number" if math.isnan(value) else "infinite"
        case _:
            return value
