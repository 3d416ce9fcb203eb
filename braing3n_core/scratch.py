"""A folder to work in that is gone afterwards; after a kill, as soon as somebody does the same kind of work beside it."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from braing3n_core.files import taken

_SUFFIX = ".braing3n-scratch"                                # nobody else's folder is ever called so
_HELD = ".held"                                              # the file whose lock says that somebody is at work


@contextlib.contextmanager
def scratch(prefix: str, where: Path | None = None) -> Iterator[Path]:
    """A folder in `where` (the system's temporary folder), its owner's alone, for as long as the context lasts.

    Guarantee: what a killed process of the same user left in `where` under the same prefix is removed by the next call, so
    nothing that is worth keeping belongs in it. A living one holds a lock on a file in its folder, which the kernel gives back
    however the process ends, and which other machines see on a network file system. Without locks nothing is removed.
    """
    place = where or Path(gettempdir())
    for left in place.glob(f"{glob.escape(prefix)}*{_SUFFIX}"):
        if _abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(_SUFFIX, prefix, place) as made:  # mkdtemp makes it 0700
        partial = Path(made) / f"{_HELD}.new"
        held = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if taken(held):
                partial.rename(partial.with_name(_HELD))     # whoever finds the name finds it locked
            yield Path(made)
        finally:
            os.close(held)


def _abandoned(folder: Path) -> bool:
    """Whether it is this user's, was held once, and is held by nobody now."""
    try:
        about = folder.lstat()
        if not (stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()):
            return False
        found = os.open(folder / _HELD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return taken(found)
    finally:
        os.close(found)
