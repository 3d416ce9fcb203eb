"""kill -9 within a round of a secure sum, of the server app and of a whole hospital, before and after its numbers are masked.

One consortium, a crash in each of its rounds (`make test-crash`). Instants are seen from outside: in the server's file of the
open sum and in the hospital's own. Masked numbers are paid for when they are made, so a crash may neither forget them nor
have them made again; the last crash also takes what the hospital kept of the sum, and a spare round stands in for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from braing3n_core.plan import TrainingPlan
from braing3n_core.state import load
from privacy.accountant import epsilon_alone
from privacy.ledger import Ledger
from server.lost_sums import lost_sums
from tests.end_to_end.hospitals import Consortium, consortium, processes, wait

pytestmark = [pytest.mark.crash, pytest.mark.timeout(7200)]
PATIENTS, PATIENCE_S = 4, 3000.0
Crash = Callable[[Consortium], None]
Seen = Callable[[Consortium, int], bool]


def step_at_server(made: Consortium, number: int) -> str:
    """The step that is open in round `number`; empty if that round has no sum yet."""
    for path in made.folder.glob("runs/*/checkpoints/open-sum.safetensors"):
        _, about = load(path)
        if about["round"] == str(number):
            return str(json.loads(about["record"])["step"])
    return ""


def steps_at_north(made: Consortium, number: int) -> list[str]:
    """The steps that north took in its newest sum, if that is of round `number`."""
    for path in (made.site("north") / "sums").glob("*.json"):
        kept = json.loads(path.read_bytes())
        if kept["place"][1] == number:
            return list(kept["asked"])
    return []


def kill_server_app(made: Consortium) -> None:
    for process in processes(str(made.folder), "flwr-serverapp"):
        os.kill(process, signal.SIGKILL)


def kill_north(made: Consortium) -> None:
    """All of its processes at once, as when its machine loses power; then it joins again."""
    for process in processes(str(made.site("north"))):
        os.kill(process, signal.SIGKILL)
    made.running.pop("north").wait()
    made.join("north")


def kill_north_and_lose_its_sum(made: Consortium) -> None:
    for process in processes(str(made.site("north"))):
        os.kill(process, signal.SIGKILL)
    made.running.pop("north").wait()
    shutil.rmtree(made.site("north") / "sums")
    made.join("north")


CRASHES: tuple[tuple[str, Seen, Crash], ...] = (             # one in each round
    ("server app, keys are known, nothing is masked", lambda m, n: step_at_server(m, n) == "letters", kill_server_app),
    ("server app, numbers are on their way", lambda m, n: "numbers" in steps_at_north(m, n), kill_server_app),
    ("server app, masked, not opened", lambda m, n: step_at_server(m, n) == "story", kill_server_app),
    ("north, keys are known, nothing is masked", lambda m, n: "letters" in steps_at_north(m, n), kill_north),
    ("north, masked, not opened", lambda m, n: "numbers" in steps_at_north(m, n), kill_north),
    ("north forgets, masked, not opened", lambda m, n: step_at_server(m, n) == "story", kill_north_and_lose_its_sum),
)


def test_no_crash_within_a_sum_forgets_a_charge_or_stops_the_run(tmp_path: Path) -> None:
    rounds = len(CRASHES)
    with consortium(tmp_path, summed=True, spare=1) as made:
        made.begin(PATIENTS, rounds, quorum=len(made.names))
        made.serve()
        for name in made.names:
            made.join(name)
        made.start()
        for number, (what, seen, crash) in enumerate(CRASHES, 1):
            wait(lambda n=number, s=seen: s(made, n), f"never seen: {what}", PATIENCE_S, made.said)  # type: ignore[misc]
            crash(made)
        assert made.ended("start", PATIENCE_S) == 0, made.said()
        told = "1 secure sum was paid and lost in decoder, round 6; 1 of 1 spare rounds spent in their place"
        assert told in made.log("start").read_text()
        verdict = json.loads((made.run / "run.json").read_text())
        assert (verdict["exit_code"], verdict["lost_sums"], verdict["spare_rounds_spent"]) == (0, 1, 1)
        (lost,) = lost_sums(made.run / "checkpoints")
        assert (lost.round, lost.paid) == (rounds, tuple(sorted(made.names)))
        rows = [json.loads(line) for line in (made.run / "rounds.jsonl").read_text().splitlines()]
        assert {row["round"] for row in rows} == set(range(1, rounds + 1))
        plan = TrainingPlan.from_json((made.run / "plan.json").read_text())
        stated = json.loads((made.run / "release" / "docs" / "privacy_certificate.json").read_text())
        for name in made.names:
            with Ledger(made.site(name) / "ledger.jsonl", plan.privacy.delta) as ledger:
                assert len(ledger.events) == rounds + 1, "each round once, and the sum that was lost"
                assert rows[-1]["epsilon"][name] == ledger.epsilon <= plan.privacy.epsilon
                assert stated["fallback"] == pytest.approx(epsilon_alone(ledger.events, ledger.delta))
