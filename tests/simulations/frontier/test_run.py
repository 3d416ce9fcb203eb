"""A frontier's points are made once, alone or side by side, and whatever stops them leaves the rows that are done."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braing3n_core.errors import Braing3nError, UsageError
from braing3n_core.plan import TrainingPlan
from server import lock
from simulations.frontier.points import plan_of, points
from simulations.frontier.run import TABLE, Pace, run
from simulations.frontier.worker import answer

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "simulations" / "recipes" / "smoke.toml"
SMOKE = TrainingPlan.load(RECIPE)
WANTED = points([2], [12], ["local", "pooled"], [8.0, math.inf], 1)
COMMAND = [sys.executable, "-c", "from simulations.cli import main; main()", "frontier", str(RECIPE), "--sites", "2",
           "--patients", "12", "--mechanism", "local,pooled", "--epsilon", "8,inf"]  # fmt: skip


def no_matter(line: str) -> None:
    """Nobody reads it."""


@pytest.mark.slow
def test_points_are_run_once_and_taken_up_again(tmp_path: Path) -> None:
    wanted = points([2], [12], ["local", "pooled"], [8.0, math.inf], 1)
    said: list[str] = []
    rows = run(SMOKE, wanted[:1], tmp_path, said.append)
    assert [one["mechanism"] for one in rows] == ["non-private"]
    rows = run(SMOKE, wanted, tmp_path, said.append)
    assert rows == json.loads((tmp_path / TABLE).read_text())
    assert [one["mechanism"] for one in rows] == ["non-private", "pooled", "local"]
    assert [one["epsilon"] for one in rows] == ["infinite", "infinite", 8.0]
    private = rows[2]
    assert private["spent"] <= 8.0
    assert all(audit["f_dp"] < audit["claimed"] and not audit["refuted"] for audit in private["audit"].values())
    assert set(private["audit"]) == {stage.name for stage in SMOKE.stages}
    assert private["stages"]["generator"]["noise_over_clip"] > 0
    assert private["plan"] == plan_of(SMOKE, wanted[2]).digest
    assert rows[0]["prior"] == private["prior"], "every arm is measured on the same people"
    before = (tmp_path / TABLE).read_bytes()
    assert run(SMOKE, wanted, tmp_path, said.append) == rows
    assert (tmp_path / TABLE).read_bytes() == before


def test_a_pace_tells_what_lanes_of_equal_points_need() -> None:
    for lanes, many in itertools.product((1, 2, 3, 8), (1, 2, 5, 8)):
        pace = Pace(lanes, many, 0.0)
        for number in range(many):
            now = 10.0 * (number // lanes + 1)
            pace.done(number, now)
        assert pace.left(now) == 0.0
        pace = Pace(lanes, many, 0.0)
        pace.done(0, 10.0)
        others = max(0, many - lanes)                        # of those that run beside it nothing is left
        assert pace.left(10.0) == pytest.approx(10.0 * math.ceil(others / lanes))


def test_a_pace_knows_how_long_running_points_have_run() -> None:
    pace = Pace(2, 4, 0.0)
    pace.done(1, 6.0)                                        # 0 runs on, 2 begins, 3 waits
    pace.done(0, 10.0)                                       # a mean of 8: 2 has 4 left, 3 has all of its 8
    assert pace.left(10.0) == pytest.approx(8.0)
    assert pace.left(15.0) == pytest.approx(3.0)
    assert pace.left(60.0) == 0.0, "never less than nothing"


def test_two_commands_never_work_in_one_folder(tmp_path: Path) -> None:
    with lock.held(tmp_path), pytest.raises(UsageError, match="another run"):
        run(SMOKE, WANTED, tmp_path, no_matter)


def test_a_point_that_is_asked_for_twice_is_made_once_and_nothing_missing_starts_nothing(tmp_path: Path) -> None:
    rows = [{"plan": plan_of(SMOKE, point).digest, "repeat": point.repeat} for point in WANTED]
    (tmp_path / TABLE).write_text(json.dumps(rows))
    assert run(SMOKE, [*WANTED, *WANTED], tmp_path, pytest.fail, jobs=0) == rows


def test_a_process_s_refusal_keeps_its_words_and_exit_code(tmp_path: Path) -> None:
    task = {"plan": SMOKE.but(rehearsal=None).canonical(), "out": str(tmp_path), "consortium": {"sites": 2, "patients": 12}}
    refused = answer(task | {"repeat": 0})
    assert refused["code"] == 3
    assert "phantoms" in refused["refused"]
    assert answer({})["failed"] == "KeyError"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first point without privacy, made by one process."""
    out = tmp_path_factory.mktemp("frontier") / "out"
    run(SMOKE, WANTED[:1], out, no_matter)
    return out


def same(one: object, other: object) -> None:
    """Equal, numbers within the rounding of other threads."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            same(one[key], other[key])
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-9)
    else:
        assert one == other


@pytest.mark.slow
def test_side_by_side_a_row_says_what_it_says_alone(alone: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = [WANTED[1], WANTED[0]]                          # not in the order that they are done in
    rows = run(SMOKE, wanted, tmp_path, said.append, jobs=2)
    assert [row["mechanism"] for row in rows] == ["pooled", "non-private"]
    assert json.loads((tmp_path / TABLE).read_text()) == rows
    (before,) = json.loads((alone / TABLE).read_text())
    same(before, rows[1])
    assert rows[0]["prior"] == rows[1]["prior"]
    assert "2 of 2 points done, the rest takes about 0 min" in said[-1]


def folder_of(out: Path, number: int) -> Path:
    return out / "runs" / f"{plan_of(SMOKE, WANTED[number]).digest[:12]}-0"


@pytest.mark.slow
def test_a_point_that_fails_is_one_line_and_costs_no_row(alone: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(alone, tmp_path / "out"))
    before = (out / TABLE).read_bytes()
    folder_of(out, 2).mkdir(parents=True)
    (folder_of(out, 2) / "checkpoints").write_text("a file where a folder must be")
    with pytest.raises(Braing3nError, match=r"^local, epsilon 8, 2 x 12, repeat 0 failed") as failure:
        run(SMOKE, WANTED, out, no_matter, jobs=2)
    assert "\n" not in str(failure.value)
    assert "Error" in (out / "frontier.log").read_text()
    assert (out / TABLE).read_bytes() == before


def processes_of(out: Path) -> list[int]:
    """Those that were started with this FRONTIER_TEST."""
    mark, found = f"FRONTIER_TEST={out}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):                   # of a dead process it is empty
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_whatever_stops_the_command_no_process_is_left_and_the_next_one_goes_on(
    alone: Path, tmp_path: Path, blow: signal.Signals
) -> None:
    out, seen = Path(shutil.copytree(alone, tmp_path / "out")), os.environ | {"FRONTIER_TEST": str(tmp_path)}
    before = (out / TABLE).read_bytes()
    words = [*COMMAND, "--out", str(out), "--jobs", "2"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it, and hands that on
    command = subprocess.Popen(words, cwd=ROOT, env=seen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (list(folder_of(out, 2).glob("sites/*/ledger.jsonl")) and folder_of(out, 1).exists()) and command.poll() is None:
        time.sleep(0.05)
    assert len(processes_of(tmp_path)) == 3, "the command, and a process for each point"
    command.send_signal(blow)
    told, _ = command.communicate()
    assert command.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL), told
    while processes_of(tmp_path):                            # a process that stayed is found by the test's own time limit
        time.sleep(0.05)
    assert (out / TABLE).read_bytes() == before
    if blow == signal.SIGKILL:
        rows = run(SMOKE, WANTED, out, no_matter, jobs=2)
        assert [row["mechanism"] for row in rows] == ["non-private", "pooled", "local"]
        assert rows[:1] == json.loads(before)
        assert rows[2]["spent"] <= 8.0
