"""One run a folder: the lock that a run holds, and by which others see that it still lives."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from braing3n_core.errors import UsageError
from braing3n_core.files import taken

_FILE = "run.lock"


@contextlib.contextmanager
def held(out: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold <out>'s lock, given back by the kernel however this process ends. Raises UsageError if another keeps it longer."""
    deadline = time.monotonic() + patience_s
    file = os.open(out / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not taken(file):
            if not time.monotonic() < deadline:
                raise UsageError(f"another run works in {out.name}; wait until it ends, or stop it")
            time.sleep(0.2)
        yield
    finally:
        os.close(file)


def is_held(out: Path) -> bool:
    """Whether a living run holds <out>'s lock."""
    if not (out / _FILE).exists():
        return False
    file = os.open(out / _FILE, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not taken(file)
    finally:
        os.close(file)
