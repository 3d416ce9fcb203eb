"""Processes that each take one task after another, so that what kills one of them costs one task.

`run_all` is the caller's side, `serve` the main of a module that works. Tasks and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

Task = Mapping[str, Any]
Answer = Mapping[str, Any]
Done = Callable[[Task, Answer], None]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def run_all(module: str, tasks: Sequence[Task], jobs: int, longest_s: float, done: Done, threads: int = 1) -> None:
    """Give every task to a process of `python -m module` and hand each answer to `done`, in the caller's thread.

    Tasks are begun in their order, `jobs` at a time, each process with so many threads. A process that dies, or takes longer
    than `longest_s` (infinity: however long), is replaced; its task's answer is {"died": why}. Ctrl-C, and whatever else
    `done` raises, ends all processes and is passed on; so does the caller's own death.
    """
    pending: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        pending.put(task)
    answers: queue.SimpleQueue[tuple[Task, Answer]] = queue.SimpleQueue()
    lanes = [_Lane(module, threads, pending, answers, longest_s) for _ in range(min(jobs, len(tasks)))]
    try:
        for lane in lanes:
            lane.start()
        for _ in tasks:
            done(*answers.get())
    finally:
        for lane in lanes:
            lane.stop()


def serve(answer: Callable[[dict[str, Any]], Answer]) -> NoReturn:
    """Answer the tasks on standard input, one after another. Ends at once, whatever it works on, when who asks is gone."""
    replies, tasks = _only_replies(), queue.SimpleQueue[str]()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        replies.write(json.dumps(answer(json.loads(tasks.get()))) + "\n")
        replies.flush()


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    _kill(os.getpid())                                       # nobody is left to hear the answer


def _only_replies() -> TextIO:
    """Standard output for answers alone: whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


class _Lane(threading.Thread):
    """One process and the thread that feeds it."""

    def __init__(
        self, module: str, threads: int, pending: queue.SimpleQueue[Task], answers: queue.SimpleQueue[tuple[Task, Answer]],
        longest_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self._module, self._threads, self._pending, self._answers = module, threads, pending, answers
        self._longest_s = min(longest_s, threading.TIMEOUT_MAX)
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
        process = self._process                              # the lane itself may end it meanwhile
        if process is not None:
            _kill(process.pid)
        if self.ident is not None:
            self.join(10)

    def _answer(self, task: Task) -> Answer:
        process = self._process = self._process or _start(self._module, self._threads)
        if self._stopped.is_set():                           # stop() came before there was a process to kill
            self._end()
            return {"died": "it was stopped"}
        clock = threading.Timer(self._longest_s, _kill, [process.pid])
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
            _kill(process.pid)
            process.communicate()


def _kill(leader: int) -> None:
    """The process and what it started: a site's own mask command must not outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


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


def _start(module: str, threads: int) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C reaches the caller alone, which then ends it."""
    so_many = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return subprocess.Popen(  # noqa: S603 - a module of ours, no shell
        [sys.executable, "-m", module], text=True, encoding="utf-8", env={**os.environ, **so_many},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
