"""The frontier: every point is run once, on the same people, and its shares are what its rows say."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.plan import TrainingPlan
from simulations.frontier.page import picture, told
from simulations.frontier.points import MEASURES, Consortium, Point, asked, gains, plan_of, points

RECIPES = Path(__file__).parents[3] / "simulations" / "recipes"
SMOKE = TrainingPlan.load(RECIPES / "smoke.toml")
SMALL = Consortium(2, 12)


def row(mechanism: str, epsilon: object, distance: float, repeat: int = 0) -> dict[str, Any]:
    prior = dict.fromkeys(MEASURES, 1.0) | {"reconstruction": 20.0}
    return {
        "study": "s", "seed": 1, "sites": 3, "patients": 100, "repeat": repeat, "mechanism": mechanism, "epsilon": epsilon,
        "stages": {"generator": {"noise_over_clip": 0.25}}, "prior": prior, "ageing_of_patients": 1.0,
        "scores": prior | {"distance": distance}, "audit": {},
    }  # fmt: skip


def _without_vote(plan: TrainingPlan) -> TrainingPlan:
    return plan.but(privacy=plan.privacy.model_copy(update={"vote_epsilon": 0.0}))


def test_every_combination_is_there_once() -> None:
    found = points([2, 3], [50], ["local", "secure-sum"], [1.0, 8.0, math.inf], 2)
    assert len(found) == len(set(found)) == 2 * 2 * (2 * 2 + 1)
    assert {point.mechanism for point in found if point.epsilon == math.inf} == {"non-private"}


@pytest.mark.parametrize(
    "words", [("3", "50", "local", "x"), ("3", "50", "local", "0,1"), ("3.5", "50", "local", "1"), ("3", "nan", "local", "1"),
              ("3", "50", "magic", "1"), ("3", "", "local", "1")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(words: tuple[str, str, str, str]) -> None:
    with pytest.raises(UsageError) as refusal:
        asked(*words, 1)
    assert "\n" not in str(refusal.value)


def test_a_point_s_plan_differs_in_what_was_asked_alone() -> None:
    plan = plan_of(SMOKE, Point(Consortium(3, 40), "local", 2.5, 0))
    assert [(site.name, site.patients) for site in plan.sites] == [(f"site-0{i}", 40) for i in (1, 2, 3)]
    assert plan.privacy.epsilon == 2.5
    assert plan.rehearsal is not None
    assert [hospital.name for hospital in plan.rehearsal.hospitals] == [site.name for site in plan.sites]
    assert plan.stages == SMOKE.stages
    again = plan_of(SMOKE, Point(Consortium(3, 40), "local", 2.5, 1))
    assert again == plan.but(seed=SMOKE.seed + 1), "a repeat has patients and a digest of its own"
    free = [plan_of(base, Point(SMALL, "non-private", math.inf, 0)) for base in (SMOKE, _without_vote(SMOKE))]
    assert free[0] == free[1], "what a recipe keeps for the vote changes no point"
    with pytest.raises(PlanRefused, match="phantoms"):
        plan_of(SMOKE.but(rehearsal=None), Point(SMALL, "local", 1.0, 0))


def test_a_recipe_of_secure_sums_has_other_budgets_and_consortia_too() -> None:
    reference = TrainingPlan.load(RECIPES / "three_sites_dp.toml")
    for sites, mechanism, epsilon in itertools.product((2, 5), ("local", "secure-sum"), (1.0, 8.0)):
        plan = plan_of(reference, Point(Consortium(sites, 100), mechanism, epsilon, 0))  # type: ignore[arg-type]  # of literals
        assert (plan.privacy.mechanism, plan.privacy.epsilon, len(plan.sites)) == (mechanism, epsilon, sites)


def test_a_share_is_of_what_training_without_privacy_gains() -> None:
    rows = [row("non-private", "infinite", 0.2), row("local", 1.0, 0.8), row("local", 8.0, 0.2), row("secure-sum", 1.0, 1.2)]
    shares = [share["distance"] for _, share in gains(rows)]
    assert shares == pytest.approx([0.25, 1.0, -0.25])
    assert all(set(share) == {"distance"} for _, share in gains(rows)), "what nobody improves has no share"
    assert not list(gains(rows[1:])), "without the run without privacy there is nothing to hold against"


def test_repeats_are_one_line_and_the_picture_is_one() -> None:
    rows = [row("non-private", "infinite", 0.2, r) for r in (0, 1)] + [row("local", 1.0, 0.6 + 0.2 * r, r) for r in (0, 1)]
    lines = list(told(rows))
    assert len(lines) == 6
    assert "38+-159 %" in next(line for line in lines if line.startswith("local")), "12.7 x 0.177 / sqrt(2)"
    assert picture(rows).startswith(b"\x89PNG")


def test_everybody_in_one_place_is_a_plan_of_one_site_without_privacy() -> None:
    wanted = points([3], [40], ["pooled", "local"], [8.0], 1)
    assert [(point.mechanism, point.epsilon) for point in wanted] == [("pooled", math.inf), ("local", 8.0)]
    plan = plan_of(SMOKE, wanted[0])
    assert [(site.name, site.patients) for site in plan.sites] == [("pooled", 120)]
    assert plan.privacy.mechanism == "non-private"
    assert plan.stages == SMOKE.stages


def test_rows_of_other_days_join_without_what_they_did_not_measure() -> None:
    old, new = row("non-private", "infinite", 0.2), row("local", 1.0, 0.6)
    del old["scores"]["age"], old["prior"]["age"], old["audit"]
    assert [set(share) for _, share in gains([old, new])] == [{"distance"}]
    assert any(line.startswith("local") for line in told([old, new]))


def test_everybody_in_one_place_has_a_share_and_is_no_point_of_the_picture() -> None:
    rows = [row("non-private", "infinite", 0.2), row("pooled", "infinite", 0.1), row("local", 1.0, 0.6)]
    assert [share["distance"] for _, share in gains(rows)] == pytest.approx([1.125, 0.5])
    assert "112 %" in next(line for line in told(rows) if line.startswith("pooled"))
    assert picture(rows).startswith(b"\x89PNG")


def test_a_change_is_of_the_stages_or_the_federation_and_no_more() -> None:
    reference = TrainingPlan.load(RECIPES / "three_sites_dp.toml")
    wanted = asked("3", "40", "secure-sum,local", "8,inf", 1, ["stages.generator = {clip = 0.5, local_steps = 2}"])
    assert [(point.mechanism, bool(point.change)) for point in wanted] == [
        (mechanism, change) for change in (False, True) for mechanism in ("non-private", "secure-sum", "local")
    ]
    plain, other = (plan_of(reference, point) for point in (wanted[2], wanted[5]))
    (one,), (two,) = plain.stages, other.stages
    assert two == one.model_copy(update={"clip": 0.5, "local_steps": 2})
    assert other.but(stages=plain.stages) == plain
    momentum = Point(SMALL, "local", 8.0, 0, "federation.optimizer = {kind = 'momentum', rate = 0.5}")
    found = plan_of(reference, momentum)
    assert found.federation.optimizer is not None
    assert found.federation.quorum == 2
    assert "federation.optimizer" in str(momentum)


@pytest.mark.parametrize(
    ("change", "why"),
    [("clip 0.5", "not TOML"), ("stages = 3", "no value of a stage"), ("stages.generator = 0.5", "no value of a stage"),
     ("stages.generator.clip = 2024-01-01", "clip"), ("stages.generator.clip = 1.6", "says already"),
     ("seed = 4", "changes seed"), ("stages.decoder.clip = 1.0", "no stage decoder"),
     ("stages.generator.clip = -1.0", "clip"), ("stages.generator.clips = 1.0", "clips")],
)  # fmt: skip
def test_a_change_that_is_none_is_refused_in_one_line(change: str, why: str) -> None:
    with pytest.raises((UsageError, PlanRefused), match=why) as refusal:
        plan_of(TrainingPlan.load(RECIPES / "three_sites_dp.toml"), Point(SMALL, "local", 8.0, 0, change))
    assert "\n" not in str(refusal.value)


def test_a_changed_row_is_held_against_the_recipe_and_is_a_line_of_its_own() -> None:
    change = {"change": "stages.generator.clip = 0.5"}
    rows = [row("non-private", "infinite", 0.2), row("local", 1.0, 0.6), row("local", 1.0, 0.4) | change,
            row("non-private", "infinite", 0.1) | change]    # fmt: skip
    assert [share["distance"] for _, share in gains(rows)] == pytest.approx([0.5, 0.75, 1.125])
    lines = list(told(rows))
    place = lines.index("with stages.generator.clip = 0.5")
    assert [line.split()[0] for line in lines[1:place]] == ["local", "non-private"]
    assert {line.split()[0] for line in lines[place + 1 : place + 3]} == {"local", "non-private"}


def test_changes_share_the_scenes_of_the_recipe() -> None:
    wanted = asked("3", "40,50", "local", "8", 2, ["stages.generator.clip = 0.5"])
    scenes = [(point.consortium, point.repeat) for point in wanted]
    assert len(wanted) == len(set(wanted)) == 8
    assert len(list(itertools.groupby(scenes))) == len(set(scenes)) == 4
