"""A folder to work in goes with its process, or with the next one: nothing of a patient stays behind a kill."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from braing3n_core.scratch import _SUFFIX, scratch

PREFIX = "work-"
WORKER = """
import pathlib, sys, time
from braing3n_core.scratch import scratch
with scratch("work-", pathlib.Path(sys.argv[1])) as folder:
    (folder / "scan").write_text("of a patient")
    print(folder, flush=True)
    time.sleep(60)
"""


def at_work(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder in `place`."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    process.stdout.close()
    return process, folder


def test_it_is_its_owner_s_alone_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch(PREFIX, tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "scan").write_text("of a patient")
    with pytest.raises(KeyError), scratch(PREFIX, tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    (dead, left), (living, held) = at_work(tmp_path), at_work(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert (left / "scan").exists(), "nobody tidies up after a kill"
        with scratch(PREFIX, tmp_path):
            assert not left.exists()
            assert (held / "scan").exists()
    finally:
        living.kill()
        living.wait()


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    mine, other, linked = tmp_path / "work-mine", tmp_path / f"rest-1{_SUFFIX}", tmp_path / f"work-2{_SUFFIX}"
    for folder in (elsewhere, mine, other):
        folder.mkdir()
        (folder / "kept").touch()
    (other / ".held").touch()
    (elsewhere / ".held").touch()
    linked.symlink_to(elsewhere)
    young = tmp_path / f"work-3{_SUFFIX}"
    young.mkdir()
    (young / ".held.new").touch()                            # made a moment ago, and not yet locked
    with scratch(PREFIX, tmp_path) as folder:
        assert folder.parent == tmp_path
    assert young.exists()
    assert all((each / "kept").exists() for each in (elsewhere, mine, other))
    assert linked.is_symlink()
