"""A folder to work in that is gone afterwards, also after a kill: whoever works beside it next removes what nobody holds."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_SUFFIX = ".braing3n-scratch"                                # nobody else's folder is ever called so
_YOUNG_S = 60.0                                              # made, and perhaps not yet held


@contextlib.contextmanager
def scratch(prefix: str, where: Path | None = None) -> Iterator[Path]:
    """A folder in `where` (the system's temporary folder), its owner's alone, for as long as the context lasts.

    Guarantee: what a killed process of the same user left in `where` under the same prefix is removed by the next call. A
    living one holds a lock on its folder, which the kernel gives back however the process ends; where the file system has no
    locks nothing is removed.
    """
    place = where or Path(gettempdir())
    for left in place.glob(f"{glob.escape(prefix)}*{_SUFFIX}"):
        if _abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(_SUFFIX, prefix, place) as made:  # mkdtemp makes it 0700
        held = os.open(made, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(made)
        finally:
            os.close(held)


def _abandoned(folder: Path) -> bool:
    """Whether it is this user's, older than a minute, and held by nobody."""
    try:
        found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        about = os.fstat(found)
        if not (about.st_uid == os.getuid() and time.time() - about.st_mtime >= _YOUNG_S):
            return False
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False                                         # held, or no locks here
    else:
        return True
    finally:
        os.close(found)
