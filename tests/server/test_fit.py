"""What the server makes of noised sums: asked once, told beside their noise, never waited for twice, and never needed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braing3n_core.charges import charges
from braing3n_core.fit import scale_of
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request, initial_values
from privacy.accountant import epsilon
from privacy.bounded_sum import UNITS
from privacy.egress import FIT_STAGE
from server import fit
from server.conduct import Progress, Reply, run, train
from server.finish import _seen, _stated
from server.fit import Reading, Told, read, reading
from tests.client.studies import brain
from tests.server.test_conduct import NAMES, plan

PRIVACY = {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.05}
PLAN: TrainingPlan = plan(privacy=PRIVACY)
ORDER = [("decoder", "before"), ("decoder", 1), ("decoder", 2), ("decoder", "after"), ("generator", "before"), ("generator", 1),
         ("generator", "after")]                             # fmt: skip
Script = Callable[[str, Request], Reply | None]


class Sites:
    """Sites that add 0.01 to every number and tell a sum of -UNITS, except where a script says what they do."""

    def __init__(self, script: Script | None = None, on: TrainingPlan = PLAN) -> None:
        self.script, self.plan, self.asked = script, on, list[tuple[str, Any]]()
        self.values = dict[tuple[str, Any], np.ndarray]()

    def ready(self) -> Iterator[Reply | None]:
        yield from ((name, {"kind": "ready", "plan": self.plan.digest}, None) for name in NAMES)

    def ask(self, requests: Mapping[str, Request]) -> Iterator[Reply | None]:
        (one, *_) = requests.values()
        self.asked.append((one.stage, one.end or one.round))
        self.values[self.asked[-1]] = one.values
        for name, request in requests.items():
            yield self.script(name, request) if self.script else honest(name, request)


def honest(name: str, request: Request, **changes: Any) -> Reply:
    named = {"site": name, "plan": request.plan, "stage": request.stage, "start": request.digest, "epsilon": 0.5}
    if request.end:
        return name, {"kind": "fit", "end": request.end, "units": -UNITS, **named, **changes}, None
    sizes = {stage.name: len(part) for stage, part in zip(PLAN.stages, initial_values(brain(PLAN), PLAN), strict=True)}
    return name, {"kind": "update", "round": request.round, **named}, np.full(sizes[request.stage], 0.01, np.float32)


def go(out: Path, sites: Sites, said: list[str] | None = None) -> int:
    return run(PLAN, out, sites, (said if said is not None else []).append, lambda model, spent: None, brain)


def noise(patients: int, sites: int = 1) -> float:
    cost = charges(PLAN, ())[FIT_STAGE]
    return scale_of("decoder", "after").deviation(cost.noise_multiplier, patients, sites)  # type: ignore[union-attr]  # Gaussian


def test_every_site_is_asked_at_both_ends_of_every_stage_and_once(tmp_path: Path) -> None:
    sites, said = Sites(), list[str]()
    assert go(tmp_path, sites, said) == 0
    assert sites.asked == ORDER
    rows = read(tmp_path)
    assert [(row.stage, row.end) for row in rows] == [one for one in ORDER if isinstance(one[1], str)]
    assert all(row.sites.keys() == set(NAMES) for row in rows)
    assert any(line.startswith("decoder changed the loss by") for line in said)
    again = Sites()
    assert go(tmp_path, again) == 0
    assert again.asked == [], "a finished run asks nobody"


def test_what_is_measured_is_where_the_stage_began_and_where_it_ended(tmp_path: Path) -> None:
    sites = Sites()
    go(tmp_path, sites)
    first, second = initial_values(brain(PLAN), PLAN)
    assert np.array_equal(sites.values["decoder", "before"], first)
    assert np.allclose(sites.values["decoder", "after"], first + 0.02)
    assert np.array_equal(sites.values["generator", "before"][: len(first)], sites.values["decoder", "after"])
    assert np.array_equal(sites.values["generator", "before"][len(first) :], second)
    assert np.allclose(sites.values["generator", "after"][len(first) :], second + 0.01)


def test_a_number_stands_beside_its_noise_and_its_divisor_is_what_was_declared() -> None:
    """10, 30 and 60 patients."""
    stage = PLAN.stage("decoder")
    found = reading(PLAN, stage, "after", dict(zip(NAMES, (-2 * UNITS, -3 * UNITS, -5 * UNITS), strict=True)))
    reach = scale_of("decoder", "after").reach
    assert found.sites["north"] == Told(pytest.approx(-2 * reach / 10), pytest.approx(noise(10)))
    assert found.pooled == Told(pytest.approx(-10 * reach / 100), pytest.approx(noise(100, 3)))
    assert found.pooled.noise < found.sites["east"].noise < found.sites["north"].noise
    before = reading(PLAN, stage, "before", dict.fromkeys(NAMES, 0))
    assert before.pooled.value == scale_of("decoder", "before").middle


@pytest.mark.parametrize(
    ("value", "said"),
    [(-0.21, "fits better"), (0.21, "fits WORSE"), (-0.19, "no more than noise"), (0.0, "no more than noise"),
     (math.nan, "no more than noise")],
)  # fmt: skip
def test_nobody_reads_noise_as_a_trend(value: float, said: str) -> None:
    row = Reading("decoder", "after", {"north": Told(value, 0.1)}, Told(value, 0.1))
    assert row.verdict.startswith(said)
    assert "+- 0.1" in row.in_words()
    assert Reading("decoder", "before", {}, Told(value, 0.1)).verdict == ""


def test_a_site_that_does_not_say_is_left_out_and_training_goes_on(tmp_path: Path) -> None:
    def shy(name: str, request: Request) -> Reply | None:
        if request.end and name == "east":
            return name, {"kind": "refusal", "code": "plan-refused"}, None
        return None if request.end and name == "south" else honest(name, request)

    said = list[str]()
    sites = Sites(shy)
    assert go(tmp_path, sites, said) == 0
    assert sites.asked == ORDER
    assert [set(row.sites) for row in read(tmp_path)] == [{"north"}] * 4
    assert "east does not say how well the model fits: plan-refused" in said
    rows = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [row["replied"] for row in rows] == [["east", "north", "south"]] * 3
    assert all(row["refused"] == {} for row in rows)


@pytest.mark.parametrize(
    "changes",
    [{"units": 0.5}, {"units": True}, {"units": 10**16}, {"units": None}, {"start": "0" * 64}, {"end": "later"},
     {"stage": "x"}, {"plan": "0" * 64}, {"kind": "update"}, {"site": "west"}],
    ids=str,
)  # fmt: skip
def test_a_reply_to_another_question_is_dropped(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert go(tmp_path, Sites(lambda name, request: honest(name, request, **(changes if name == "east" else {})))) == 0
    assert [set(row.sites) for row in read(tmp_path)] == [{"north", "south"}] * 4


def test_nobody_says_so_nothing_is_written(tmp_path: Path) -> None:
    quiet = Sites(lambda name, request: None if request.end else honest(name, request))
    assert go(tmp_path, quiet) == 0
    assert read(tmp_path) == []


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_a_run_cut_short_anywhere_has_every_number_once(tmp_path: Path, place: int) -> None:
    class Killed(Exception):
        pass

    def killed(name: str, request: Request) -> Reply | None:
        if (request.stage, request.end or request.round) == ORDER[place] and name == "east":
            raise Killed
        return honest(name, request)

    assert go(tmp_path, Sites(killed)) == 1
    second = Sites()
    assert go(tmp_path, second) == 0
    begun = place - 1 if ORDER[place][1] == "after" else place
    assert second.asked == ORDER[begun:], "a round whose end was not told is closed again"
    assert [(row.stage, row.end) for row in read(tmp_path)] == [one for one in ORDER if isinstance(one[1], str)]


def test_a_plan_that_tells_no_fit_is_conducted_as_ever(tmp_path: Path) -> None:
    bare, sites = plan(), Sites(on=plan())
    state = train(bare, tmp_path, sites, Progress(bare, lambda line: None), brain).state
    assert sites.asked == [one for one in ORDER if not isinstance(one[1], str)]
    assert not (tmp_path / "fit.jsonl").exists()
    told = train(PLAN, tmp_path / "told", Sites(), Progress(PLAN, lambda line: None), brain).state
    assert np.array_equal(state.values, told.values), "being told changes no round"


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    go(tmp_path, Sites())
    whole = (tmp_path / "fit.jsonl").read_bytes()
    (tmp_path / "fit.jsonl").write_bytes(whole[:-20])
    assert len(read(tmp_path)) == 3
    fit._append(tmp_path / "fit.jsonl", read(tmp_path)[0])
    assert len(read(tmp_path)) == 4


def test_what_may_be_told_is_counted_in_what_a_site_spent_though_its_replies_are_lost() -> None:
    events = _seen(PLAN, "north", [], [])
    assert [event.stage for event in events] == [FIT_STAGE] * 4  # type: ignore[union-attr]  # all Gaussian
    assert events[0] == charges(PLAN, ())[FIT_STAGE]
    assert _stated(PLAN, "north", 0.1, [], []).epsilon == epsilon(events, PLAN.privacy.delta) > 0.1


def test_who_watches_sees_numbers_and_their_noise(tmp_path: Path) -> None:
    go(tmp_path, Sites())
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    facts = [line for line in lines if "value/all sites" in json.dumps(line)]
    assert len(facts) == 4
    events = (tmp_path / "tensorboard" / "events.out.tfevents.0.braing3n").read_bytes()
    assert b"fit after decoder/value/north" in events
    assert b"fit after decoder/noise/all sites" in events
