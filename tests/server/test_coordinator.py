"""No reply but the one that was asked for moves the model, and no site's failure takes the others down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused, ReplyRefused, WaitingForSites, exit_code
from privacy.errors import BudgetExhausted
from server.coordinator import Coordinator, State
from tests.server.studies import SIZES, begun, header, initial, reply, study

NAMES = ("north", "east", "south")


def test_stages_follow_the_plan_and_each_begins_where_the_prior_left_it() -> None:
    run = begun()
    seen = []
    while not run.done:
        request = run.request()
        seen.append((request.stage, request.round, len(request.values)))
        for name in NAMES:
            reply(run, name, 0.5)
        run.close_round()
    assert seen == [("decoder", 1, 3), ("decoder", 2, 3), ("generator", 1, 8)]
    assert run.state.values.tolist() == [1.0] * 3 + [1.5] * 5


def test_the_update_is_weighted_by_the_declared_sizes_of_those_who_replied() -> None:
    run = begun()
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    report = run.close_round()
    assert run.state.values == pytest.approx([4.0] * 3)
    assert (report.replied, report.missing) == (("east", "north"), ("south",))


def test_too_few_replies_wait_for_sites_and_leave_the_round_open() -> None:
    run = begun()
    before = run.state
    reply(run, "north")
    run.refuse("east", "failed", "failed")
    with pytest.raises(WaitingForSites, match=r"decoder, round 1: 1 of 3 .* 2 are needed: east refused") as caught:
        run.close_round()
    assert exit_code(caught.value) == 7
    assert run.state is before
    reply(run, "south")
    assert run.close_round().replied == ("north", "south")


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [("budget-exhausted", BudgetExhausted, 5), ("data-refused", DataRefused, 3), ("plan-refused", PlanRefused, 3)],
)
def test_a_round_that_can_never_be_had_says_why(code: str, kind: type[Exception], status: int) -> None:
    run = begun()
    reply(run, "north")
    run.refuse("east", "said no", code)
    run.refuse("south", "said no", code)
    with pytest.raises(kind, match="east, south") as caught:
        run.close_round()
    assert exit_code(caught.value) == status


def test_one_site_s_empty_budget_does_not_stop_the_others() -> None:
    run = begun()
    reply(run, "north")
    reply(run, "east")
    run.refuse("south", "no budget", "budget-exhausted")
    assert run.close_round().refused == {"south": "no budget"}


def test_a_state_of_another_plan_or_with_nan_is_not_resumed() -> None:
    for state in (State(0, 1, np.ones(4, np.float32)), State(1, 0, np.full(8, math.nan, np.float32))):
        with pytest.raises(IntegrityError):
            Coordinator(study(), initial(), state)


def test_resuming_after_any_round_ends_where_an_unbroken_run_ends() -> None:
    whole = begun()
    states = [whole.state]
    while not whole.done:
        for name in NAMES:
            reply(whole, name, 0.25)
        whole.close_round()
        states.append(whole.state)
    for state in states:
        resumed = Coordinator(study(), initial(), state)
        while not resumed.done:
            for name in NAMES:
                reply(resumed, name, 0.25)
            resumed.close_round()
        assert np.array_equal(resumed.state.values, whole.state.values)


poisons = st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.0, 1.0, 1e6])
deeds = st.tuples(
    st.sampled_from([*NAMES, "west"]),
    st.sampled_from(["reply", "repeat", "late", "short", "none", "refuse", "close"]),
    poisons,
)


@given(st.lists(deeds, max_size=40))
def test_no_sequence_of_misdeeds_makes_the_model_anything_but_finite(sequence: list[tuple[str, str, float]]) -> None:
    run = begun()
    for site, deed, value in sequence:
        expected = SIZES[run.state.stage]
        try:
            match deed:
                case "reply" | "repeat":
                    run.accept(site, header(run, site), np.full(expected, value, np.float32))
                case "late":
                    run.accept(site, header(run, site, round=run.state.rounds), np.full(expected, value, np.float32))
                case "short":
                    run.accept(site, header(run, site), np.full(expected - 1, value, np.float32))
                case "none":
                    run.accept(site, header(run, site), None)
                case "refuse":
                    run.refuse(site, "failed", "budget-exhausted" if value > 0 else "failed")
                case "close" if not run.done:
                    before = run.state
                    run.close_round()
                    assert run.state != before
        except (ReplyRefused, WaitingForSites, BudgetExhausted):
            pass
        assert np.isfinite(run.state.values).all()
        assert set(run.replies) <= set(NAMES)
        assert not set(run.replies) & set(run.refused)


@pytest.mark.parametrize(
    ("said", "kept"), [(1.5, 1.5), (math.nan, math.inf), (-1.0, math.inf), ("3", math.inf), (None, math.inf)]
)
def test_an_epsilon_that_is_not_a_number_counts_as_no_guarantee(said: Any, kept: float) -> None:
    run = begun()
    run.accept("north", header(run, "north", epsilon=said), np.ones(3, np.float32))
    assert run.spent == {"north": kept}
