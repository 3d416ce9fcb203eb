"""Two runs never work in one folder, and a lock dies with its holder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from server.lock import held, is_held

HOLDER = """
import sys, time
from pathlib import Path
from server.lock import held
with held(Path(sys.argv[1])):
    print("x", flush=True)
    time.sleep(600)
"""


def test_a_second_holder_is_refused_and_told_so(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UsageError, match="another run works in"), held(tmp_path, 0.3):
            pytest.fail("two hold one lock")
    assert not is_held(tmp_path)


def test_kill_9_gives_the_lock_back(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "x\n"
        assert is_held(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with held(tmp_path, 10):
            assert is_held(tmp_path)
