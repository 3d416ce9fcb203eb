"""Memory that was freed is not asked for again, and a C library that cannot promise it is left alone."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from privacy.heap import keep_freed_memory

FILL = """
import ctypes, resource, sys
from privacy.heap import keep_freed_memory
kept = keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = c.malloc(100 << 20); ctypes.memset(place, 1, 100 << 20); c.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill(); print(kept, fill())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    kept, faults = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, check=True).stdout.split()
    assert kept == "False" or int(faults) < 1000, "100 MB are 25,600 pages"


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not keep_freed_memory()
