"""The C library's memory between the steps of a training."""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3                    # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, mallopt(3)
_NEVER: Final = 2**31 - 1                                    # bytes: the largest int


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, in place of giving it back and asking for it again at the next step.

    A private step frees each patient's gradients, and a page that comes anew costs more than what is written to it. What the
    process holds at its peak, and what lies between its blocks, it then holds until it ends. As after any free, old contents
    are not wiped until they are written over; they leave the process no more than before. False where the C library is not
    glibc, or is one that refuses; nothing is changed there, and a step costs what it did.
    """
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(_MMAP_THRESHOLD, _NEVER) and library.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (AttributeError, OSError, TypeError):             # no such function, no such library, no such way to ask for it
        return False
