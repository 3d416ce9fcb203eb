"""kill -9 of every process at every instant of a round: the run ends with its release, and no ledger forgets a charge.

Twenty-five cases in five consortia: each has five rounds with a crash in each, so that one run goes on after all of its five.
The first consortium is in `make test`, the other four are in `make test-crash`; each takes minutes.
Instants are seen from outside, in the files that a site and a server write anyway; nothing in the code is told that it is being
tested. Noise comes from the operating system and cannot be drawn again, but what sites answered is on their disks: a
coordinator that gets those answers, and meets no crash, has to come to the same model bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.charges import charges
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import finished, initial_values
from braing3n_core.state import load
from privacy.egress import purpose_of
from privacy.ledger import Ledger
from server.coordinator import Coordinator
from tests.end_to_end.hospitals import Consortium, consortium, processes, wait

pytestmark = pytest.mark.timeout(3600)
NAMES, PATIENTS, STEPS = ("north", "south"), 6, 6            # steps enough for a kill in the middle of them
PATIENCE_S = 900.0

Seen = Callable[[Consortium, int], bool]                     # whether a round is at the instant


def kinds(made: Consortium, name: str) -> list[str]:
    """The kinds of the whole records in a site's ledger."""
    path = made.site(name) / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["record"]["kind"] for line in lines]


def closed(made: Consortium) -> int:
    return sum(path.read_bytes().count(b"\n") for path in made.folder.glob("runs/*/rounds.jsonl"))


def before_training(made: Consortium, number: int) -> bool:
    """North's node took the round from the server, and its app has not paid for it yet."""
    log = made.site("north") / "node.log"
    session = log.read_bytes().rpartition(b"Starting Flower SuperNode")[2] if log.exists() else b""
    taken = session.count(b"Receiving: train.round") > session.count(b"Sending: train.round")
    return taken and closed(made) == number - 1 == kinds(made, "north").count("reserved") and bool(site_apps(made))


def mid_training(made: Consortium, number: int) -> bool:
    """North paid, and there is no update yet."""
    return kinds(made, "north").count("reserved") == number == kinds(made, "north").count("released") + 1


def after_training(made: Consortium, number: int) -> bool:
    """North's update is on its disk; the server does not have it yet."""
    return len(list((made.site("north") / "answers").glob("*.f32"))) == number and closed(made) < number


def during_aggregation(made: Consortium, number: int) -> bool:
    """Both updates left, and the round is not closed."""
    return all(kinds(made, name).count("released") == number for name in NAMES) and closed(made) < number


def during_checkpoint(made: Consortium, number: int) -> bool:
    """The round's checkpoint is being written, or was just now."""
    return bool(list(made.folder.glob(f"runs/*/checkpoints/*round-{number:05d}*")))


INSTANTS: dict[str, Seen] = {                                # one in each round of a consortium, in this order
    "before-training": before_training,
    "mid-training": mid_training,
    "after-training": after_training,
    "during-aggregation": during_aggregation,
    "during-checkpoint": during_checkpoint,
}
VICTIMS = ("site-app", "supernode", "superlink", "server-app", "everything")
ROUNDS = len(INSTANTS)


def site_apps(made: Consortium) -> list[int]:
    """North's processes that work on a message: what Flower started and the fork that it called."""
    north = str(made.site("north"))
    warm = [Path(f"/proc/{number}/task/{number}/children") for number in processes(north, "-m\0client.warm")]
    forks = [int(number) for path in warm if path.exists() for number in path.read_text().split()]
    return [*processes(north, "client.warm import call"), *forks]


def victims(made: Consortium, victim: str) -> list[int]:
    match victim:
        case "server-app":
            return processes(str(made.folder), "flwr-serverapp")
        case "superlink":
            return processes(str(made.folder), "flower-superlink")
        case "site-app":
            return site_apps(made)
        case "supernode":
            return processes(str(made.site("north")), "client.node")
        case _:
            return processes(str(made.place))


def kill(made: Consortium, victim: str) -> None:
    """SIGKILL; where everything was killed, as when the machine loses power, everything is started again."""
    found = victims(made, victim)
    # A site's app ends when its update has left: then there is none to kill, and the round has to go on all the same.
    assert found or victim == "site-app"
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if victim == "everything":
        for running in made.running.values():
            running.wait()
        made.running.clear()
        bring_up(made)


def bring_up(made: Consortium) -> None:
    made.serve()
    for name in made.names:
        made.join(name)
    made.start()


def undisturbed(made: Consortium, plan: TrainingPlan) -> dict[str, torch.Tensor]:
    """The model of a run that gets the answers which the sites keep on their disks, each once, and meets no crash."""
    run = Coordinator(plan, initial_values(load_prior(plan), plan))
    while not run.done:
        request = run.request()
        for name in made.names:
            with Ledger(made.site(name) / "ledger.jsonl", plan.privacy.delta) as ledger:
                purpose = purpose_of(plan.digest, request.stage, request.round)
                (paid,) = (r for r in ledger.reservations if r.purpose == purpose and ledger.released(r))
            kept = (made.site(name) / "answers" / f"{paid.digest}.f32").read_bytes()
            header = {"kind": "update", "site": name, "plan": plan.digest, "stage": request.stage, "round": request.round,
                      "start": kept[:64].decode()}  # fmt: skip
            run.accept(name, header, np.frombuffer(kept[64:], "<f4"))
        run.close_round()
    model = load_prior(plan)
    finished(model, plan, run.state.values)
    return dict(model.state_dict())


CONSORTIA = [pytest.param(0, id="in make test", marks=pytest.mark.slow)]
CONSORTIA += [pytest.param(number, id=f"consortium {number}", marks=pytest.mark.crash) for number in range(1, len(VICTIMS))]


@pytest.mark.parametrize("first", CONSORTIA)
def test_kill_9_loses_at_most_the_round_in_flight_and_never_a_charge(first: int, tmp_path: Path) -> None:
    with consortium(tmp_path, NAMES, steps=STEPS) as made:
        made.begin(PATIENTS, ROUNDS, quorum=len(NAMES))
        bring_up(made)
        for number, (instant, seen) in enumerate(INSTANTS.items(), 1):
            victim = VICTIMS[(first + number - 1) % len(VICTIMS)]
            wait(lambda n=number, s=seen: s(made, n), f"round {number}, {instant}: never seen", PATIENCE_S, made.said, 0.03)  # type: ignore[misc]
            kill(made, victim)
        assert made.ended("start", PATIENCE_S) == 0, made.said()
        assert (made.run / "release" / "docs" / "report.html").exists()
        rows = [json.loads(line) for line in (made.run / "rounds.jsonl").read_text().splitlines()]
        assert {row["round"] for row in rows} == set(range(1, ROUNDS + 1))
        plan = TrainingPlan.from_json((made.run / "plan.json").read_text())
        (stage,) = plan.stages
        for name in NAMES:
            with Ledger(made.site(name) / "ledger.jsonl", plan.privacy.delta) as ledger:
                # An undisturbed run pays each round once. The plan has no budget for a lost round, so this one does the same.
                assert list(ledger.events) == [charges(plan, ())[stage.name]] * ROUNDS
                assert rows[-1]["epsilon"][name] == ledger.epsilon <= plan.privacy.epsilon
        tensors, _ = load(made.run / "model.safetensors")
        alone = undisturbed(made, plan)
        assert tensors.keys() == alone.keys()
        assert all(torch.equal(tensors[key], alone[key]) for key in alone)
