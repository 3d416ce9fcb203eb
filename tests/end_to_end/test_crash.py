"""kill -9 of every process at every instant of a round: the run ends with its release, and no ledger forgets a charge.

Twenty-five cases, two to five minutes each: `make test-crash`.
Instants are seen from outside, in the files that a site and a server write anyway; nothing in the code is told that it is being
tested. Noise comes from the operating system and cannot be drawn again, but what sites answered is on their disks: a
coordinator that gets those answers, and meets no crash, has to come to the same model bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
import time
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

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]
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
CASES = [pytest.param(victim, instant, id=f"{victim}-{instant}") for victim in VICTIMS for instant in INSTANTS]


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


@pytest.mark.parametrize(("victim", "instant"), CASES)
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
        plan = TrainingPlan.from_json((made.run / "plan.json").read_text())
        (stage,) = plan.stages
        for name in NAMES:
            with Ledger(made.site(name) / "ledger.jsonl", plan.privacy.delta) as ledger:
                # An undisturbed run pays each round once. The plan has no budget for a lost round, so this one does the same.
                assert list(ledger.events) == [charges(plan, ())[stage.name]] * ROUNDS
                assert paid[name] <= ROUNDS
                assert rows[-1]["epsilon"][name] == ledger.epsilon <= plan.privacy.epsilon
        tensors, _ = load(made.run / "model.safetensors")
        alone = undisturbed(made, plan)
        assert tensors.keys() == alone.keys()
        assert all(torch.equal(tensors[key], alone[key]) for key in alone)
