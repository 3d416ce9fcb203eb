"""kill -9 of every process at every instant of a round: the run ends with its release, and no ledger forgets a charge.

Twenty-five cases, about a minute each: `make test-crash`. Instants are seen from outside, in the files
that a site and a server write anyway; nothing in the code is told that it is being tested.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.ledger import Ledger
from tests.end_to_end.hospitals import Consortium, consortium, processes, wait

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.timeout(3600)]
NAMES, ROUNDS, PATIENTS = ("north", "south"), 2, 6
PATIENCE_S = 1500.0

Seen = Callable[[Consortium], bool]


def kinds(made: Consortium, name: str) -> list[str]:
    """The kinds of the whole records in a site's ledger."""
    path = made.site(name) / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["record"]["kind"] for line in lines]


def checkpoints(made: Consortium) -> list[Path]:
    return [path for path in made.folder.glob("runs/*/checkpoints/*") if path.name.endswith((".safetensors", ".tmp"))]


def before_training(made: Consortium) -> bool:
    """A round was handed to north's app, which has not paid for it yet."""
    log = made.site("north") / "node.log"
    return log.exists() and b"train.round" in log.read_bytes() and bool(processes(str(made.site("north")), "client.clientapp"))


def mid_training(made: Consortium) -> bool:
    return "reserved" in kinds(made, "north") and "released" not in kinds(made, "north")


def after_training(made: Consortium) -> bool:
    """North's update is on its disk; the server does not have it yet."""
    return any((made.site("north") / "answers").glob("*.f32"))


def during_aggregation(made: Consortium) -> bool:
    return all("released" in kinds(made, name) for name in NAMES)


def during_checkpoint(made: Consortium) -> bool:
    return bool(checkpoints(made))


INSTANTS: dict[str, Seen] = {
    "before-training": before_training,
    "mid-training": mid_training,
    "after-training": after_training,
    "during-aggregation": during_aggregation,
    "during-checkpoint": during_checkpoint,
}
VICTIMS = ("server-app", "superlink", "site-app", "supernode", "everything")


def victims(made: Consortium, victim: str) -> list[int]:
    match victim:
        case "server-app":
            return processes(str(made.folder), "flwr-serverapp")
        case "superlink":
            return processes(str(made.folder), "flower-superlink")
        case "site-app":
            return processes(str(made.site("north")), "client.clientapp")
        case "supernode":
            return processes(str(made.site("north")), "client.node")
        case _:
            return processes(str(made.place))


def bring_up(made: Consortium) -> None:
    made.serve()
    for name in made.names:
        made.join(name)
    made.start()


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_kill_9_loses_at_most_the_round_in_flight_and_never_a_charge(victim: str, instant: str, tmp_path: Path) -> None:
    with consortium(tmp_path, NAMES) as made:
        made.begin(PATIENTS, ROUNDS, quorum=len(NAMES))
        bring_up(made)
        wait(lambda: INSTANTS[instant](made), f"{instant} was never seen", PATIENCE_S, made.said)
        paid = {name: kinds(made, name).count("reserved") for name in NAMES}
        for process in victims(made, victim):
            os.kill(process, signal.SIGKILL)
        if victim == "everything":
            for running in made.running.values():
                running.wait()
            made.running.clear()
            time.sleep(1)
            bring_up(made)
        assert made.ended("start", PATIENCE_S) == 0, made.said()
        assert (made.run / "release" / "docs" / "report.html").exists()
        rows = [json.loads(line) for line in (made.run / "rounds.jsonl").read_text().splitlines()]
        assert {row["round"] for row in rows} == set(range(1, ROUNDS + 1))
        for name in NAMES:
            with Ledger(made.site(name) / "ledger.jsonl", 1e-4) as ledger:
                # An undisturbed run pays ROUNDS times; a lost round may have been paid for once more, never less.
                assert max(ROUNDS, paid[name]) <= len(ledger.events) <= ROUNDS + 1
                assert 0 < ledger.epsilon <= 8
