"""A run ends with its true exit code, whatever its sites do, and goes on where it was cut."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request, initial_values
from server.conduct import Progress, Reply, run
from tests.client.studies import brain
from tests.server.studies import study

NAMES = ("north", "east", "south")
Script = Callable[[str, Request], Reply | None]
GROUPS = {"decoder": "group:style", "generator": "group:conditions"}


def plan(**changes: Any) -> TrainingPlan:
    whole = study(**changes)
    return whole.but(stages=[stage.model_copy(update={"trainable": GROUPS[stage.name]}) for stage in whole.stages])


@cache
def sizes() -> dict[str, int]:
    return {s.name: len(v) for s, v in zip(plan().stages, initial_values(brain(plan()), plan()), strict=True)}


def same(one: Brain, other: Brain) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


class Scripted:
    """Sites that add 0.01 to every number, except where a script says what they do."""

    def __init__(self, script: Script | None = None, ready: Mapping[str, str] | None = None) -> None:
        self.script, self.refusals, self.asked = script, ready or {}, list[tuple[str, int]]()

    def ready(self) -> Iterator[Reply | None]:
        yield None
        for name in NAMES:
            code = self.refusals.get(name)
            yield name, {"kind": "refusal" if code else "ready", "code": code or "", "plan": plan().digest}, None

    def ask(self, requests: Mapping[str, Request]) -> Iterator[Reply | None]:
        (one, *_) = requests.values()
        self.asked.append((one.stage, one.round))
        for name, request in requests.items():
            yield self.script(name, request) if self.script else self.honest(name, request)

    def honest(self, name: str, request: Request, value: float = 0.01) -> Reply:
        header = {
            "kind": "update", "site": name, "plan": request.plan, "stage": request.stage, "round": request.round,
            "start": request.digest, "epsilon": 0.1 * len(self.asked),
        }  # fmt: skip
        return name, header, np.full(sizes()[request.stage], value, np.float32)


def go(out: Path, sites: Scripted, said: list[str] | None = None) -> tuple[int, list[tuple[Brain, Mapping[str, float]]]]:
    released: list[tuple[Brain, Mapping[str, float]]] = []
    lines = said if said is not None else []
    code = run(plan(), out, sites, lines.append, lambda model, spent: released.append((model, spent)), brain)
    verdict = json.loads((out / "run.json").read_text())
    assert verdict["exit_code"] == code
    assert verdict["plan"] == plan().digest
    return code, released


def test_a_run_trains_every_round_and_hands_the_finished_model_over(tmp_path: Path) -> None:
    sites = Scripted()
    said: list[str] = []
    code, ((model, spent),) = go(tmp_path, sites, said)
    assert code == 0
    assert sites.asked == [("decoder", 1), ("decoder", 2), ("generator", 1)]
    assert spent == pytest.approx(dict.fromkeys(NAMES, 0.3))
    before, after = brain(plan()).state_dict(), model.state_dict()
    moved = {name for name in after if not np.array_equal(before[name].numpy(), after[name].numpy())}
    assert moved
    assert all(name.startswith(("decoder.style.", "generator.conditions.")) for name in moved)
    rows = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [row["epsilon"]["north"] for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert said[0] == f"artefacts: {tmp_path}"
    assert (tmp_path / "model.safetensors").exists()


def test_a_run_cut_short_goes_on_and_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    _, ((whole, _),) = go(tmp_path / "whole", Scripted())

    class Killed(Exception):
        pass

    def killed(name: str, request: Request) -> Reply | None:
        if (request.stage, request.round, name) == ("decoder", 2, "east"):
            raise Killed
        return Scripted().honest(name, request)

    code, released = go(tmp_path / "cut", Scripted(killed))
    assert (code, released) == (1, [])
    second = Scripted()
    code, ((resumed, _),) = go(tmp_path / "cut", second)
    assert code == 0
    assert second.asked == [("decoder", 2), ("generator", 1)]
    assert same(whole, resumed)


def test_a_finished_run_is_released_again_without_asking_anybody(tmp_path: Path) -> None:
    go(tmp_path, Scripted())
    again = Scripted()
    code, released = go(tmp_path, again)
    assert (code, len(released), again.asked) == (0, 1, [])


@pytest.mark.parametrize(
    "poison",
    [
        lambda reply: None,
        lambda reply: (reply[0], reply[1], None),
        lambda reply: (reply[0], reply[1], np.full_like(reply[2], math.nan)),
        lambda reply: (reply[0], reply[1], reply[2][:-1]),
        lambda reply: (reply[0], reply[1], reply[2].reshape(1, -1)),
        lambda reply: (reply[0], {**reply[1], "round": reply[1]["round"] - 1}, reply[2]),
        lambda reply: (reply[0], {}, None),
        lambda reply: ("west", reply[1], reply[2]),
    ],
    ids=["silent", "None", "NaN", "short", "2-D", "late", "empty", "stranger"],
)
def test_one_bad_site_never_stops_or_moves_the_others(tmp_path: Path, poison: Callable[[Any], Any]) -> None:
    honest = Scripted()

    def script(name: str, request: Request) -> Reply | None:
        reply = honest.honest(name, request)
        return poison(reply) if name == "south" else reply

    code, ((model, spent),) = go(tmp_path, Scripted(script))
    assert code == 0
    assert set(spent) == {"north", "east"}
    _, ((alone, _),) = go(tmp_path / "alone", Scripted(lambda n, r: None if n == "south" else honest.honest(n, r)))
    assert same(model, alone)


@pytest.mark.parametrize(
    ("code", "status"), [("budget-exhausted", 5), ("data-refused", 3), ("internal", 7), ("ledger-busy", 7)]
)
def test_sites_that_refuse_give_the_run_its_exit_code(tmp_path: Path, code: str, status: int) -> None:
    sites = Scripted(lambda name, request: (name, {"kind": "refusal", "code": code}, None))
    assert go(tmp_path / "round", sites)[0] == status
    assert go(tmp_path / "ready", Scripted(ready={"north": code, "east": code}))[0] == status
    error = json.loads((tmp_path / "round" / "run.json").read_text())["error"]
    assert "decoder, round 1" in error
    assert "\n" not in error


def test_a_site_that_refused_for_good_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(name: str, request: Request) -> Reply | None:
        asked.append(name)
        return Scripted().honest(name, request)

    code, _ = go(tmp_path, Scripted(script, ready={"south": "data-refused"}))
    assert code == 0
    assert set(asked) == {"north", "east"}


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    go(tmp_path, Scripted())
    other = plan(seed=2)
    assert run(other, tmp_path, Scripted(), lambda line: None, lambda model, spent: None, brain) == 3
    assert json.loads((tmp_path / "plan.json").read_text())["seed"] == 1


def test_there_is_news_at_least_every_ten_seconds_and_not_at_every_round() -> None:
    clock, said = [0.0], list[tuple[float, str]]()
    progress = Progress(study(), lambda line: said.append((clock[0], line)), lambda: clock[0])
    while clock[0] < 60:
        clock[0] += 0.2
        progress.round("decoder", 1, 1, 3, closed=False)
    times = [when for when, _ in said]
    assert all(later - earlier <= 10 for earlier, later in pairwise(times))
    assert len(said) <= 8
    progress.round("decoder", 1, 3, 3, closed=True)
    assert "decoder: round 1 of 2, 3 of 3 sites replied, 59.8 s a round, decoder ends in 60 s" in said[-1][1]


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(0)])
def test_a_server_app_that_was_told_to_stop_says_interrupted_and_is_taken_up(tmp_path: Path, signal: BaseException) -> None:
    """Flower answers a signal with SystemExit and code 0, which is neither an end of the run nor its success."""
    whole = Scripted()

    def stopped(name: str, request: Request) -> Reply:
        raise signal

    code, released = go(tmp_path, Scripted(script=stopped))
    assert (code, released) == (130, [])
    code, released = go(tmp_path, whole)
    assert code == 0
    assert len(released) == 1
    assert whole.asked
