"""All points of a frontier, in this process or side by side in several, and the table that holds their rows."""

from __future__ import annotations

import heapq
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from braing3n_core import errors
from braing3n_core.console import heartbeat
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.plan import TrainingPlan
from client.workers import Answer, Done, Task, cores, run_all
from privacy.errors import BudgetExhausted
from server import lock
from simulations.frontier.points import Consortium, Point, base_of, plan_of
from simulations.frontier.row import Row, known_of, row_of, scene_of

TABLE, WORKER = "frontier.json", "simulations.frontier.worker"
_LOG = "frontier.log"
_REFUSALS: Mapping[int, type[Exception]] = {
    errors.USAGE: errors.UsageError, errors.REFUSED: errors.DataRefused, errors.BLOCKED: errors.GateBlocked,
    errors.EXHAUSTED: BudgetExhausted, errors.INTEGRITY: errors.IntegrityError, errors.WAITING: errors.WaitingForSites,
}  # fmt: skip


def run(base: TrainingPlan, wanted: Sequence[Point], out: Path, say: Say, jobs: int = 1) -> list[Row]:
    """Every point that out/frontier.json does not hold yet, `jobs` at a time (0: one for each core); all rows of it.

    Rows of earlier calls come first, then those of this one in the order of `wanted`, whichever was done first. The table is
    written after every point, by this process alone. Stopping, and the first point that fails, loses the points that are being
    made, and the next call takes up what they had trained. Raises UsageError while another call works in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock.held(out):
        table = _Table(base, wanted, out, say)
        lanes = min(jobs or cores(), len(table.missing))
        if lanes > 1:
            _side_by_side(base, table, lanes)
        else:
            _in_turn(base, table)
        return table.rows


def _in_turn(base: TrainingPlan, table: _Table) -> None:
    """In this process, scene by scene."""
    out, say = table.out, table.say
    table.begin(1)
    for (consortium, repeat), group in itertools.groupby(table.missing, key=_scene_of):
        common = base_of(base, consortium, repeat)
        scene = scene_of(common, out, say)
        known = known_of(common, scene, say)
        for point in group:
            table.keep(point, row_of(plan_of(base, point), point, scene, known, out, say))


def _side_by_side(base: TrainingPlan, table: _Table, lanes: int) -> None:
    """First every scene, each made by one process; then the points, whose processes read their scene from the cache."""
    common = {"plan": base.canonical(), "out": str(table.out)}
    scenes = list(dict.fromkeys(map(_scene_of, table.missing)))
    known: dict[tuple[Consortium, int], Any] = {}

    def scene_made(task: Task, answer: Answer) -> None:
        consortium, repeat = scenes[task["number"]]
        known[consortium, repeat] = _heard(answer, f"phantoms and prior of {consortium}, repeat {repeat}", table.out)["known"]
        table.say(f"phantoms and prior: {len(known)} of {len(scenes)} consortia and repeats are ready")

    def point_made(task: Task, answer: Answer) -> None:
        point = table.missing[task["number"]]
        table.keep(point, _heard(answer, str(point), table.out)["row"])

    tasks = [common | {"number": i, "consortium": asdict(one), "repeat": repeat} for i, (one, repeat) in enumerate(scenes)]
    _all_done(tasks, min(lanes, len(tasks)), scene_made, "making phantoms and measuring the prior", table.say)
    tasks = [
        common | {"number": i, "known": known[_scene_of(point)]} | asdict(point) for i, point in enumerate(table.missing)
    ]
    table.begin(lanes)
    _all_done(tasks, lanes, point_made, f"making points, {lanes} at a time", table.say)


def _all_done(tasks: Sequence[Task], lanes: int, done: Done, what: str, say: Say) -> None:
    """In so many processes, each with its part of the threads that this one would take."""
    with heartbeat(say, what):
        run_all(WORKER, tasks, lanes, math.inf, done, max(1, torch.get_num_threads() // lanes))


def _scene_of(point: Point) -> tuple[Consortium, int]:
    return point.consortium, point.repeat


def _heard(answer: Answer, what: str, out: Path) -> Answer:
    """The answer, or the process's refusal as if it had been raised here."""
    if "refused" in answer:
        raise _REFUSALS.get(answer["code"], errors.Braing3nError)(f"{what}: {answer['refused']}")
    if "failed" in answer:
        write_atomically(out / _LOG, answer["trace"].encode("utf-8", "backslashreplace"))
        raise errors.Braing3nError(f"{what} failed unexpectedly ({answer['failed']}); report it with {out / _LOG}")
    if "died" in answer:
        raise errors.Braing3nError(f"{what} was not done: {answer['died']}; run again with fewer --jobs")
    return answer


class _Table:
    """The rows, on disk as soon as they are made, and the points that have none yet."""

    def __init__(self, base: TrainingPlan, wanted: Sequence[Point], out: Path, say: Say) -> None:
        self.out, self.say = out, say
        path = out / TABLE
        self._before: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self._made: dict[Point, Row] = {}
        there = {(row["plan"], row["repeat"]) for row in self._before}
        each: dict[tuple[str, int], Point] = {}              # two processes never make one plan's point
        for point in wanted:
            each.setdefault((plan_of(base, point).digest, point.repeat), point)
        self.missing = [point for key, point in each.items() if key not in there]

    @property
    def rows(self) -> list[Row]:
        """Of earlier calls, then of this one in the order asked."""
        return [*self._before, *(self._made[point] for point in self.missing if point in self._made)]

    def begin(self, lanes: int) -> None:
        """The missing rows come from now on, from so many lanes."""
        self._pace = Pace(lanes, len(self.missing), time.monotonic())

    def keep(self, point: Point, row: Row) -> None:
        """One more row; tells how long the rest takes."""
        self._made[point] = row
        write_atomically(self.out / TABLE, (json.dumps(self.rows, indent=1, allow_nan=False) + "\n").encode())
        now = time.monotonic()
        self._pace.done(self.missing.index(point), now)
        left = self._pace.left(now) / 60
        self.say(f"{point}: {len(self._made)} of {len(self.missing)} points done, the rest takes about {left:.0f} min")


class Pace:
    """How long the rest takes, if every point takes the mean of those that are done and no lane is idle. Knows no clock."""

    def __init__(self, lanes: int, points: int, now: float) -> None:
        self._begun = dict.fromkeys(range(min(lanes, points)), now)             # points are begun in their order
        self._next, self._points = len(self._begun), points
        self._took: list[float] = []

    def done(self, number: int, now: float) -> None:
        """That point is done, and its lane begins the next."""
        self._took.append(now - self._begun.pop(number))
        if self._next < self._points:
            self._begun[self._next] = now
            self._next += 1

    def left(self, now: float) -> float:
        """Seconds. At least one point is done."""
        mean = fmean(self._took)
        free = [max(mean - (now - since), 0.0) for since in self._begun.values()]       # when each lane is
        heapq.heapify(free)
        for _ in range(self._points - self._next):
            heapq.heapreplace(free, free[0] + mean)
        return max(free, default=0.0)
