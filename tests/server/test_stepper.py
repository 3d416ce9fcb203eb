"""Server optimizers do what their paper says, and a run that is taken up steps on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.plan import Optimizer, TrainingPlan
from server import checkpoint
from server.coordinator import Coordinator
from server.stepper import Moments, step
from tests.server.studies import initial, reply, study

CHANGES = [np.array([1.0, -2.0, 0.0], np.float32), np.array([0.5, 4.0, 1e-4], np.float32), np.zeros(3, np.float32)]
NAMES = ("north", "east", "south")


def taken(how: Optimizer | None) -> list[np.ndarray]:
    moments: Moments = ()
    steps = []
    for change in CHANGES:
        added, moments = step(how, change, moments)
        steps.append(added)
    return steps


def test_without_an_optimizer_the_change_is_added_as_it_is() -> None:
    assert all(np.array_equal(got, change) for got, change in zip(taken(None), CHANGES, strict=True))


def test_momentum_adds_up_what_it_forgets_slowly() -> None:
    first, second, third = taken(Optimizer(kind="momentum", rate=0.5, momentum=0.9))
    assert first == pytest.approx(0.5 * CHANGES[0])
    assert second == pytest.approx(0.5 * (0.9 * CHANGES[0] + CHANGES[1]))
    assert third == pytest.approx(0.5 * (0.81 * CHANGES[0] + 0.9 * CHANGES[1]))


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_adam_and_yogi_by_hand(kind: str) -> None:
    m, v, expected = np.zeros(3), np.zeros(3), []
    for change in CHANGES:
        delta = change.astype(float)
        m = 0.9 * m + 0.1 * delta
        v = 0.99 * v + 0.01 * delta**2 if kind == "adam" else v - 0.01 * delta**2 * np.sign(v - delta**2)
        expected.append(0.1 * m / (np.sqrt(v) + 1e-3))
    got = taken(Optimizer.model_validate({"kind": kind, "rate": 0.1}))
    assert all(one == pytest.approx(other, rel=1e-4, abs=1e-7) for one, other in zip(got, expected, strict=True))


def test_moments_of_another_model_are_refused() -> None:
    with pytest.raises(IntegrityError, match="do not fit its plan"):
        step(Optimizer(kind="adam", rate=0.1), CHANGES[0], (np.zeros(2, np.float32), np.zeros(2, np.float32)))


def plan(**federation: object) -> TrainingPlan:
    return study(federation={"quorum": 3, "deadline_s": 60.0, **federation})


@pytest.mark.parametrize("kind", ["momentum", "adam", "yogi"])
def test_a_run_taken_up_from_its_checkpoint_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    chosen = plan(optimizer={"kind": kind, "rate": 0.3})

    def closed(run: Coordinator, value: float) -> None:
        for name in NAMES:
            reply(run, name, value)
        run.close_round()

    whole = Coordinator(chosen, initial())
    closed(whole, 1.0)
    checkpoint.write(tmp_path, chosen.digest, whole.state)
    resumed = Coordinator(chosen, initial(), checkpoint.newest(tmp_path, chosen.digest))
    for run in (whole, resumed):
        closed(run, 0.25)
    assert np.array_equal(whole.state.values, resumed.state.values)
    assert whole.state.stage == 1
    assert whole.state.moments == ()                         # another stage trains other tensors


def test_trimming_more_than_the_quorum_bears_is_no_plan() -> None:
    with pytest.raises(PlanRefused, match="must be more than twice trim"):
        plan(aggregate={"rule": "trimmed-mean", "trim": 2})


def test_a_plan_that_asks_for_nothing_new_keeps_its_digest() -> None:
    # The digest of the studies' plan as it was before there were these tables.
    assert study().digest == "a50f9d30d926c1c10dda9fccb8a7af85f7d3771fe8e1cbdfe9e25420e0e5c7ff"
    robust = plan(aggregate={"rule": "median"})
    assert robust.digest != plan().digest
    assert TrainingPlan.from_json(robust.canonical()) == robust
