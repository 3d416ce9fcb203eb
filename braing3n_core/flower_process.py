"""Flower's own programs, started so that two runs never meet: private home, no telemetry, no update check, no installation."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from braing3n_core.console import marked

Say = Callable[[str], None]
Process = subprocess.Popen[str]
BIN = Path(sys.executable).parent
_END_S = 8.0                                                 # for processes to end by themselves
_START_NEWS_S = 9.0                                          # never ten seconds of silence while Flower starts;
_NEWS_S = 20.0                                               # then the server speaks, through a stream that may lag


def environment(home: Path, first: Path | None = None, **more: str) -> dict[str, str]:
    """What a Flower process sees: ours, its own FLWR_HOME, and a PATH that begins with `first` and this installation."""
    path = [*([str(first)] if first else []), str(BIN), os.environ.get("PATH", os.defpath)]
    return os.environ | {
        "PATH": os.pathsep.join(path),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",          # seconds; one by default, of every message's time
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "400",                                    # Flower wraps its log at the terminal's width
    } | more  # fmt: skip


def start(words: Sequence[str], cwd: Path, seen: dict[str, str], output: IO[str] | int, keep: Sequence[int] = ()) -> Process:
    """Start a program of this installation. `keep`: open files that it may read as /dev/fd/N."""
    # A session of its own: Ctrl-C reaches us alone, and we end the rest in order.
    program = words[0] if os.sep in words[0] else str(BIN / words[0])
    return subprocess.Popen(  # noqa: S603 - programs of our own environment, no shell
        [program, *words[1:]], cwd=cwd, env=seen, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True, pass_fds=keep,
    )  # fmt: skip


def follow(process: Process, log: IO[str], say: Say, over: Callable[[], bool], waiting: str) -> None:
    """Copy a stream to the log and our own lines to `say`, until it ends or a while after the run is `over`."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()      # ends with the process
    last_news, ended, patience = time.monotonic(), None, _START_NEWS_S
    while True:
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=1.0)
            if line is None:
                return
            log.write(line)
            log.flush()
            if (text := marked(line)) is not None:
                say(text)
                last_news, patience = time.monotonic(), _NEWS_S
        if time.monotonic() - last_news >= patience:
            say(waiting)
            last_news = time.monotonic()
        if ended is None and over():
            ended = time.monotonic()
        if ended is not None and lines.empty() and time.monotonic() - ended > _END_S:
            return


def end_all(home: Path) -> None:
    """End every process with this FLWR_HOME, also those that left their parent."""
    for step in (signal.SIGTERM, signal.SIGKILL):
        for process in processes_of(home):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, step)
        deadline = time.monotonic() + _END_S
        while processes_of(home) and time.monotonic() < deadline:
            time.sleep(0.1)


def processes_of(home: Path) -> list[int]:
    """Processes that were started with this FLWR_HOME, ours not counted."""
    mark, found = f"FLWR_HOME={home}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def answers(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read(process: Process, lines: queue.Queue[str | None]) -> None:
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
    lines.put(None)
