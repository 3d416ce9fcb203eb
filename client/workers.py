"""Processes that each take one task after another, so that what kills one of them costs one task."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Task = Mapping[str, Any]
Answer = Mapping[str, Any]
Done = Callable[[Task, Answer], None]


def run_all(module: str, tasks: Sequence[Task], jobs: int, longest_s: float, done: Done) -> None:
    """Give every task to a process of `python -m module` and hand each answer to `done`, in the caller's thread.

    A process that dies, or takes longer than `longest_s`, is replaced; its task's answer is {"died": why}. Ctrl-C ends all
    processes and is passed on.
    """
    pending: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        pending.put(task)
    answers: queue.SimpleQueue[tuple[Task, Answer]] = queue.SimpleQueue()
    lanes = [_Lane(module, pending, answers, longest_s) for _ in range(min(jobs, len(tasks)))]
    try:
        for lane in lanes:
            lane.start()
        for _ in tasks:
            done(*answers.get())
    finally:
        for lane in lanes:
            lane.stop()


class _Lane(threading.Thread):
    """One process and the thread that feeds it."""

    def __init__(
        self, module: str, pending: queue.SimpleQueue[Task], answers: queue.SimpleQueue[tuple[Task, Answer]], longest_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._module, self._pending, self._answers, self._longest_s = module, pending, answers, longest_s
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                task = self._pending.get_nowait()
            except queue.Empty:
                break
            try:
                answer = self._answer(task)
            except (OSError, ValueError) as error:           # no process, or no answer that can be read
                answer = {"died": type(error).__name__}
            self._answers.put((task, answer))
        self._end()

    def stop(self) -> None:
        """End now, whatever is being worked on."""
        self._stopped.set()
        if self._process is not None:
            self._process.kill()
        if self.ident is not None:
            self.join(10)

    def _answer(self, task: Task) -> Answer:
        process = self._process = self._process or _start(self._module)
        clock = threading.Timer(self._longest_s, process.kill)
        clock.start()
        try:
            line = _asked(process, json.dumps(task))
        finally:
            late = not clock.is_alive()
            clock.cancel()
        if line:
            return dict(json.loads(line))
        self._end()
        return {"died": f"it took more than {self._longest_s:.0f} s" if late else "its process ended, as when memory runs out"}

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _asked(process: subprocess.Popen[str], line: str) -> str:
    """The process's answer to one line, empty if it is gone."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    answer = process.stdout.readline()
    return answer if answer.endswith("\n") else ""


def _start(module: str) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C reaches the caller alone, which then ends it."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(  # noqa: S603 - a module of ours, no shell
        [sys.executable, "-m", module], text=True, encoding="utf-8", env={**os.environ, **one_thread},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
