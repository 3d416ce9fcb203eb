"""One `flwr run` in simulation, with everything around it that Flower leaves to its user.

Its own FLWR_HOME, port and empty working directory, so that two runs never meet; no telemetry, update check or installation;
a daemon that ends with the run; and the run's true exit code, where Flower's is 0 whatever happened.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from braing3n_core.bundle import toml_lines, write_app
from braing3n_core.errors import INTERRUPTED, UNEXPECTED, Braing3nError
from braing3n_core.flower_process import Process, Say, answers, end_all, environment, follow, free_port, start

Config = Mapping[str, str | int | float]
OURS = ("server.app:app", "client.app:app")                  # the apps of a run: the server's, the sites'
_START_S = 60.0                                              # for the daemon to answer


def run(config: Config, out: Path, sites: int, say: Say, apps: Sequence[str] = OURS) -> int:
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
                seen = environment(place / "home", RAY_USAGE_STATS_ENABLED="0", RAY_TMPDIR=str(place))
                started.append(_daemon(place, seen, log))
                say("starting Flower")
                _until_it_answers(place, started[0])
                started.append(_submit(place, config, sites, seen, apps))
                follow(started[1], log, say, (out / "run.json").exists, "waiting for Flower and Ray")
            return _verdict(out, say)
        except KeyboardInterrupt:
            say("interrupted; run again with the same output folder to go on from the last whole round")
            return INTERRUPTED
        finally:
            end_all(place / "home")
            for process in started:
                process.wait()


def _daemon(place: Path, seen: dict[str, str], log: IO[str]) -> Process:
    """Flower's SuperLink in simulation mode, on a port of its own that its clients read in FLWR_HOME."""
    (place / "home").mkdir()
    (place / "empty").mkdir()                                # Flower imports apps from the daemon's working directory first
    port = free_port()
    (place / "port").write_text(str(port))
    (place / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    words = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1"]
    return start([*words, "--port", str(port)], place / "empty", seen, log)


def _until_it_answers(place: Path, process: Process) -> None:
    port, deadline = int((place / "port").read_text()), time.monotonic() + _START_S
    while not answers(port):
        if process.poll() is not None or not time.monotonic() < deadline:
            raise Braing3nError("Flower's SuperLink did not start; flower.log in the output folder says why")
        time.sleep(0.2)


def _submit(place: Path, config: Config, sites: int, seen: dict[str, str], apps: Sequence[str]) -> Process:
    """Hand the run to the daemon; the process that streams its log."""
    (place / "run.toml").write_text("\n".join(toml_lines(config)) + "\n", encoding="utf-8")
    workers = min(sites, os.cpu_count() or 1)
    resources = f"num-supernodes={sites} client-resources-num-cpus=1 init-args-num-cpus={workers}"
    words = ["flwr", "run", str(write_app(place / "app", *apps)), "here", "--stream", "--run-config", str(place / "run.toml")]
    return start([*words, "--federation-config", resources], place / "empty", seen, subprocess.PIPE)


def _verdict(out: Path, say: Say) -> int:
    """The exit code that the server wrote at its end. Flower's own exit code is 0 for a failed run, so none is no success."""
    try:
        return int(json.loads((out / "run.json").read_text(encoding="utf-8"))["exit_code"])
    except (OSError, ValueError, KeyError):
        say("stopped: the server ended without a verdict; flower.log in the output folder says why, run again to resume")
        return UNEXPECTED
