"""A gate says what it found, what it allows and what to do; NaN opens none."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from braing3n_core.errors import GateBlocked, PlanRefused
from braing3n_core.plan import TrainingPlan
from server.release import gates
from server.release.anatomy import Findings, examine, implausible
from server.release.candidates import candidates, chosen
from server.release.cohort import draw
from server.release.gates import Votes
from server.release.inputs import SitePrivacy
from server.release.policy import Policy

POLICY = Policy.load()
RULES = POLICY.rules
BRAIN = Findings(1700.0, 30.0, 0.5, 0.3, 0.0, 0.0)
SPENT = SitePrivacy("site-a", 5.4, 8.0, 1e-4, 6.2, ())


def test_a_brain_passes_and_anything_else_is_named() -> None:
    assert implausible(BRAIN, RULES.anatomy) is None
    for change, words in (
        ({"brain_ml": 300.0}, "brain_ml is 300, allowed 900 to 2300"),
        ({"ventricles_ml": math.nan}, "ventricles_ml is nan"),
        ({"grey_share": math.nan}, "grey_share is nan"),
        ({"outside": 0.5}, "outside is 0.5, allowed at most 0.02"),
        ({"fragments": math.nan}, "fragments is nan"),
    ):
        found = implausible(dataclasses.replace(BRAIN, **change), RULES.anatomy)
        assert found is not None
        assert words in found


def test_volumes_that_are_no_brains_never_pass(plan: TrainingPlan, volumes: Tensor) -> None:
    rules, preset = RULES.anatomy, plan.model
    assert [implausible(examine(volume, preset), rules) for volume in volumes] == [None] * len(volumes)
    moved = torch.roll(volumes[0], 14, dims=2)
    scattered = volumes[0].clone()
    scattered[:, ::3, ::3, ::3] = 1.0
    for broken in (torch.zeros_like(volumes[0]), torch.rand_like(volumes[0]), moved, scattered):
        assert implausible(examine(broken, preset), rules) is not None


def test_too_many_broken_volumes_close_the_gate() -> None:
    broken = dataclasses.replace(BRAIN, brain_ml=10.0)
    gate, rejected = gates.anatomy(RULES.anatomy, [BRAIN, BRAIN, BRAIN, broken])
    assert gate.passed
    assert list(rejected) == [3]
    gate, _ = gates.anatomy(RULES.anatomy, [BRAIN, broken])
    assert not gate.passed
    with pytest.raises(GateBlocked, match=r"nothing was released: anatomy: 1 of 2 .* at most 25% .*: look at the images"):
        gates.refuse_closed([gate])
    assert not gates.anatomy(RULES.anatomy, [])[0].passed


@pytest.mark.slow
def test_one_person_many_times_is_no_cohort(plan: TrainingPlan, volumes: Tensor) -> None:
    assert gates.diversity(RULES.diversity, {"T1w": volumes}, plan.model).passed
    twins = torch.cat([volumes[:3], volumes[:1] + 0.001])
    gate = gates.diversity(RULES.diversity, {"T1w": twins}, plan.model)
    assert not gate.passed
    assert "most similar pair 1.000" in gate.found
    assert not gates.diversity(RULES.diversity, {"T1w": volumes[:1]}, plan.model).applies


@pytest.mark.parametrize(
    ("measured", "passed", "applies"),
    [([20.0 + i for i in range(10)], True, True), ([5.0] * 10, False, True), ([9.0 - i for i in range(10)], False, True)],
)
def test_a_generator_that_ignores_the_request_is_stopped(measured: list[float], passed: bool, applies: bool) -> None:
    gate = gates.condition(RULES.condition, [float(i) for i in range(10)], measured)
    assert (gate.passed, gate.applies) == (passed, applies)


def test_with_few_requests_the_gate_says_that_it_cannot_judge() -> None:
    gate = gates.condition(RULES.condition, [1.0, 2.0], [1.0, 2.0])
    assert (gate.passed, gate.applies) == (True, False)
    assert "too few to judge" in gate.found


def test_the_budget_gate(plan: TrainingPlan) -> None:
    assert gates.budget(plan, [SPENT]).passed
    assert not gates.budget(plan, []).passed
    over = gates.budget(plan, [SPENT, dataclasses.replace(SPENT, site="site-b", epsilon=8.5)])
    assert not over.passed
    assert over.found == "site-b spent epsilon 8.5 of 8 agreed"


# ------------------------------------------------------------------------------------------------------ copies


def test_whom_a_site_votes_against_is_rejected_and_the_noise_is_stated(voting: TrainingPlan) -> None:
    votes = Votes({"site-a": "010000", "site-b": "010001"}, 2.0, 0.86)
    gate, rejected = gates.copies(voting, POLICY, votes, 6)
    assert gate.passed
    assert rejected == {1: "site-a and site-b voted against it", 5: "site-b voted against it"}
    assert gate.numbers["vote_lost"] == pytest.approx(1 / (1 + math.exp(2)))
    assert gate.found.startswith("2 of 6 candidates voted out, 1.3 are expected from noise alone")


def test_a_site_that_does_not_vote_closes_the_gate(voting: TrainingPlan) -> None:
    assert "site-b did not vote" in gates.copies(voting, POLICY, Votes({"site-a": "0"}, 2.0, 0.86), 1)[0].found
    assert not gates.copies(voting, POLICY, Votes({"site-a": "0", "site-b": "00"}, 2.0, 0.86), 1)[0].passed
    assert not gates.copies(voting.but(rehearsal=None), POLICY, None, 1)[0].passed


def test_without_a_vote_the_gate_never_claims_to_have_judged(plan: TrainingPlan) -> None:
    gate, rejected = gates.copies(plan, POLICY, None, 4)
    assert (gate.passed, gate.applies, rejected) == (True, False, {})
    assert gates.verdict([gate]) == "WARNED"


# -------------------------------------------------------------------------------------------------- candidates


def test_spares_never_change_who_is_asked_for(plan: TrainingPlan) -> None:
    pool = candidates(plan.release, plan.variables, RULES.copies, voted=True)
    asked = draw(plan.release, plan.variables)
    assert [one.person for one in pool[: len(asked)]] == asked
    assert [one.cell for one in pool] == [0] * 4 + [1] * 2 + [0] * 4 + [1] * 4
    assert [one.index for one in pool] == list(range(14))
    assert [one.person for one in chosen(plan.release, pool, {})] == asked


def test_a_rejected_candidate_is_replaced_by_the_next_of_its_cell_and_by_nobody_else(plan: TrainingPlan) -> None:
    pool = candidates(plan.release, plan.variables, RULES.copies, voted=True)
    people = chosen(plan.release, pool, {1: "x", 4: "y"})
    assert [one.index for one in people] == [0, 2, 3, 6, 5, 10]
    assert [one.person.name for one in people] == [f"sub-syn{i:04d}" for i in range(1, 7)]
    assert people[3].person.conditions == pool[6].person.conditions


def test_too_few_candidates_block_the_release_and_say_what_to_do(plan: TrainingPlan) -> None:
    pool = candidates(plan.release, plan.variables, RULES.copies, voted=True)
    lost = {one.index: "site-a voted against it" for one in pool if one.cell == 1}
    with pytest.raises(GateBlocked, match=r"cell 2 asks for 2 people and 0 .* 6 were rejected, .* raise copies.spare"):
        chosen(plan.release, pool, lost)


# ------------------------------------------------------------------------------------------------------ policy


def test_a_policy_is_its_bytes_and_refuses_what_it_does_not_know() -> None:
    assert Policy.read(POLICY.raw).digest == POLICY.digest
    assert Policy.read(POLICY.raw + b"\n").digest != POLICY.digest
    with pytest.raises(PlanRefused, match="treshold"):
        Policy.read(POLICY.raw.replace(b"threshold", b"treshold"))
    with pytest.raises(PlanRefused, match="TOML"):
        Policy.read(b"version =")
    with pytest.raises(PlanRefused, match=r"copies\.threshold"):
        Policy.read(POLICY.raw.replace(b"0.88", b"nan"))
