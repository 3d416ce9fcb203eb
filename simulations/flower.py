"""One `flwr run`, with everything around it that Flower leaves to its user.

Its own FLWR_HOME, port and empty working directory, so that two runs never meet; no telemetry, update check or installation;
a daemon that ends with the run; and the run's true exit code, where Flower's is 0 whatever happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from braing3n_core.bundle import toml_lines, write_app
from braing3n_core.console import marked
from braing3n_core.errors import INTERRUPTED, UNEXPECTED, Braing3nError

Say = Callable[[str], None]
Config = Mapping[str, str | int | float]
Process = subprocess.Popen[str]
_BIN = Path(sys.executable).parent
_START_S = 60.0                                              # for the daemon to answer
_END_S = 8.0                                                 # for processes to end by themselves
_START_NEWS_S = 9.0                                          # never ten seconds of silence while Flower and Ray start;
_NEWS_S = 20.0                                               # then the server speaks, through a stream that may lag


def run(config: Config, out: Path, sites: int, say: Say) -> int:
    """Run the federation of `sites` sites with these run-config keys; `out` is their out-dir. Returns the documented exit code.

    Everything Flower and Ray say goes to <out>/flower.log; `say` gets our lines alone. Whatever happens, no process of the
    run is left behind. After Ctrl-C the same call takes the run up at its newest checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").unlink(missing_ok=True)
    with TemporaryDirectory(prefix="braing3n-", ignore_cleanup_errors=True) as scratch:
        place, started = Path(scratch), list[Process]()
        try:
            with (out / "flower.log").open("w", encoding="utf-8") as log:
                environment = _environment(place)
                started.append(_daemon(place, environment, log))
                say("starting Flower")
                _until_it_answers(place, started[0])
                started.append(_submit(place, config, sites, environment))
                _follow(started[1], out, log, say)
            return _verdict(out, say)
        except KeyboardInterrupt:
            say("interrupted; run again with the same output folder to go on from the last whole round")
            return INTERRUPTED
        finally:
            _end_all(place / "home")
            for process in started:
                process.wait()


def _daemon(place: Path, environment: dict[str, str], log: IO[str]) -> Process:
    """Flower's SuperLink in simulation mode, on a port of its own that its clients read in FLWR_HOME."""
    (place / "home").mkdir()
    (place / "empty").mkdir()                                # Flower imports apps from the daemon's working directory first
    port = _free_port()
    (place / "port").write_text(str(port))
    (place / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    words = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1"]
    return _start([*words, "--port", str(port)], place, environment, log)


def _until_it_answers(place: Path, process: Process) -> None:
    port, deadline = int((place / "port").read_text()), time.monotonic() + _START_S
    while not _answers(port):
        if process.poll() is not None or not time.monotonic() < deadline:
            raise Braing3nError("Flower's SuperLink did not start; flower.log in the output folder says why")
        time.sleep(0.2)


def _submit(place: Path, config: Config, sites: int, environment: dict[str, str]) -> Process:
    """Hand the run to the daemon; the process that streams its log."""
    (place / "run.toml").write_text("\n".join(toml_lines(config)) + "\n", encoding="utf-8")
    workers = min(sites, os.cpu_count() or 1)
    resources = f"num-supernodes={sites} client-resources-num-cpus=1 init-args-num-cpus={workers}"
    words = ["flwr", "run", str(write_app(place / "app")), "here", "--stream", "--run-config", str(place / "run.toml")]
    return _start([*words, "--federation-config", resources], place, environment, subprocess.PIPE)


def _follow(process: Process, out: Path, log: IO[str], say: Say) -> None:
    """Copy Flower's stream to the log and our lines to `say`, until it ends or the run's verdict is on disk."""
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
            say("waiting for Flower and Ray")
            last_news = time.monotonic()
        if ended is None and (out / "run.json").exists():
            ended = time.monotonic()
        if ended is not None and lines.empty() and time.monotonic() - ended > _END_S:
            return


def _read(process: Process, lines: queue.Queue[str | None]) -> None:
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
    lines.put(None)


def _verdict(out: Path, say: Say) -> int:
    """The exit code that the server wrote at its end. Flower's own exit code is 0 for a failed run, so none is no success."""
    try:
        return int(json.loads((out / "run.json").read_text(encoding="utf-8"))["exit_code"])
    except (OSError, ValueError, KeyError):
        say("stopped: the server ended without a verdict; flower.log in the output folder says why, run again to resume")
        return UNEXPECTED


def _environment(place: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(place / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(place),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "400",                                    # Flower wraps its log at the terminal's width
    }


def _start(words: list[str], place: Path, environment: dict[str, str], output: IO[str] | int) -> Process:
    # A session of its own: Ctrl-C reaches us alone, and we end the rest in order.
    words = [str(_BIN / words[0]), *words[1:]]
    return subprocess.Popen(  # noqa: S603 - programs of our own environment, no shell
        words, cwd=place / "empty", env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip


def _end_all(home: Path) -> None:
    """End every process of this run: they all carry its FLWR_HOME, also those that left their parent."""
    for step in (signal.SIGTERM, signal.SIGKILL):
        for process in _of_run(home):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, step)
        deadline = time.monotonic() + _END_S
        while _of_run(home) and time.monotonic() < deadline:
            time.sleep(0.1)


def _of_run(home: Path) -> list[int]:
    mark, found = f"FLWR_HOME={home}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
