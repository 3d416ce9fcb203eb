"""One run of a signed plan on the consortium's server, taken up again until it has a verdict, and its true exit code."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from braing3n_core.bundle import toml_lines, write_app
from braing3n_core.errors import INTERRUPTED, UNEXPECTED, UsageError, WaitingForSites
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import BIN, Say, end_all, environment, follow, start
from braing3n_core.settings import OWN
from server.conduct import claim
from server.consortium import Consortium
from server.lock import held, is_held
from server.plans import signed
from server.serve import Link

_TRIES = 3                                                   # in a row without a round that closed
_LINK_S = 300.0                                              # for a SuperLink that is being started again
_BEGIN_S = 120.0                                             # for the server app to take its folder's lock


def start_run(consortium: Consortium, path: Path, say: Say) -> tuple[int, Path]:
    """Run the signed plan in `path`, from where its folder under runs/ stands. Returns the exit code and that folder.

    A server app or SuperLink that is killed ends this run's Flower run, not the run: it is handed in again.
    """
    agreement, link = signed(consortium, path), Link(consortium)
    if not link.up:
        raise UsageError(f"nothing serves {consortium.folder}; in another terminal: braing3n-admin serve {consortium.folder}")
    out = consortium.run(agreement.plan.digest)
    claim(agreement.plan, out)
    write_atomically(out / "sites.json", json.dumps(dict(agreement.keys), sort_keys=True).encode())
    home = consortium.folder / "flower" / f"start-{agreement.plan.digest[:16]}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(home):
        try:
            return _until_a_verdict(link, out, home, say), out
        except KeyboardInterrupt:
            _stop(link, out, say)
            return INTERRUPTED, out
        finally:
            end_all(home)


def verdict(out: Path) -> int | None:
    """The exit code that the server app wrote at its end; None while it runs, or if it was killed."""
    try:
        return int(json.loads((out / "run.json").read_text(encoding="utf-8"))["exit_code"])
    except (OSError, ValueError, KeyError):
        return None


def _until_a_verdict(link: Link, out: Path, home: Path, say: Say) -> int:
    tries, closed = 0, _closed(out)
    while tries < _TRIES:
        (out / "run.json").unlink(missing_ok=True)
        _hand_in(link, out, home, say)
        # A server app that was interrupted ended with its SuperLink: Ctrl-C here reaches this process, not that one.
        if (code := verdict(out)) not in (None, INTERRUPTED):
            return code
        tries, closed = (0 if _closed(out) > closed else tries + 1), _closed(out)
        say("the server app ended without a verdict; taking the run up at its last whole round")
        _wait_for(link)
    say(f"stopped: {_TRIES} tries in a row closed no round; {out / 'flower.log'} and superlink.log say why")
    return UNEXPECTED


def _hand_in(link: Link, out: Path, home: Path, say: Say) -> None:
    """Give the run to the SuperLink and follow it until it has a verdict or its server app is dead."""
    end_all(home)
    app = home / "app"
    if not app.exists():
        write_app(app)
    config = home / "run.toml"
    config.write_text("\n".join(toml_lines({"plan": str(out / "plan.json"), "out-dir": str(out), "data": OWN})) + "\n")
    (home / "config.toml").write_bytes((link.admin / "config.toml").read_bytes())
    words = ["flwr", "run", str(app), "link", "--stream", "--run-config", str(config)]
    begun, lived = time.monotonic(), False

    def over() -> bool:
        nonlocal lived
        lived = lived or is_held(out)
        dead = lived and not is_held(out)
        return dead or verdict(out) is not None or (not lived and time.monotonic() - begun > _BEGIN_S)

    with (out / "flower.log").open("a", encoding="utf-8") as log:
        process = start(words, home, environment(home), subprocess.PIPE)
        follow(process, log, say, over, "waiting for the server app")
        while not over():                                    # a stream that broke is not a run that ended
            time.sleep(0.5)


def _stop(link: Link, out: Path, say: Say) -> None:
    """End the server app. A site that is training goes on to the end of its round: it has paid for it."""
    log = (out / "flower.log").read_text(encoding="utf-8", errors="replace")
    if runs := re.findall(r"started run (\d+)", log):
        subprocess.run(  # noqa: S603 - a program of our own environment, no shell
            [str(BIN / "flwr"), "stop", runs[-1], "link"], env=environment(link.admin), cwd=link.home / "empty",
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
    say("interrupted; the same command goes on from the last whole round")


def _wait_for(link: Link) -> None:
    deadline = time.monotonic() + _LINK_S
    while not link.up:
        if not time.monotonic() < deadline:
            raise WaitingForSites("the SuperLink is gone; start `serve` again, then this command")
        time.sleep(0.5)


def _closed(out: Path) -> int:
    path = out / "rounds.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
