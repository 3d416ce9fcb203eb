"""A plan says exactly one thing, and what it cannot say is refused with the reason and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from braing3n_core.errors import REFUSED, PlanRefused, exit_code
from braing3n_core.plan import TrainingPlan

TABLES: dict[str, Any] = {
    "study": "smoke",
    "seed": 1,
    "sites": [{"name": "north", "patients": 40}, {"name": "south", "patients": 60}],
    "privacy": {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5},
    "stages": [
        {
            "name": "decoder",
            "trainable": "group:style",
            "rounds": 2,
            "local_steps": 3,
            "sample_rate": 0.5,
            "views": 1,
            "clip": 1.0,
            "learning_rate": 0.1,
            "share": 1.0,
        }
    ],
    "federation": {"quorum": 1, "deadline_s": 60.0},
    "release": {"seed": 1, "cells": [{"count": 2, "conditions": {"age": [20, 90], "sex": ["F"]}}]},
}


def plan(**changes: Any) -> TrainingPlan:
    return TrainingPlan.from_json(json.dumps(TABLES | changes))


def test_the_canonical_form_is_the_plan() -> None:
    assert TrainingPlan.from_json(plan().canonical()) == plan()
    assert TrainingPlan.from_json(plan().canonical()).digest == plan().digest


def test_any_change_changes_the_digest() -> None:
    assert plan(seed=2).digest != plan().digest
    assert plan().but(seed=2) == plan(seed=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": TABLES["privacy"] | {"epsilon": 0.0}}, "privacy.epsilon"),
        ({"privacy": TABLES["privacy"] | {"epsilon": float("nan")}}, "finite"),
        ({"privacy": TABLES["privacy"] | {"epsilom": 1.0}}, "did you mean 'epsilon'"),
        ({"sites": [{"name": "north", "patients": 4}] * 2}, "two sites are called 'north'"),
        ({"privacy": {"mechanism": "non-private", "epsilon": 1.0, "delta": 0.1}}, "rehearsals only"),
        ({"federation": {"quorum": 3, "deadline_s": 1.0}}, "quorum=3"),
        ({"release": {"seed": 1, "cells": [{"count": 1, "conditions": {"ages": [20, 30]}}]}}, "did you mean 'age'"),
        ({"stages": [TABLES["stages"][0] | {"share": 0.5}]}, "add up to 1"),
        ({"stages": [TABLES["stages"][0] | {"trainable": "lora:0"}]}, "trainable"),
        ({"preset": "base"}, 'no prior ships for preset base; write start = "scratch"'),
        ({"preset": "huge"}, "preset"),
        ({"quantizer": "fsq:1"}, "quantizer"),
        ({"release": TABLES["release"] | {"guidance": 2.0, "guidance_of": {"age": 2.0}}}, "weigh all conditions together"),
        ({"release": TABLES["release"] | {"guidance_of": {"aeg": 2.0}}}, "did you mean 'age'"),
        ({"release": TABLES["release"] | {"guidance_of": {"age": -1.0}}}, "guidance_of"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanRefused, match=words) as refusal:
        plan(**changes)
    assert "\n" not in str(refusal.value)
    assert exit_code(refusal.value) == REFUSED


def test_a_missing_file_and_a_broken_one_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused, match="no plan at"):
        TrainingPlan.load(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("study = ")
    with pytest.raises(PlanRefused, match="not readable as TOML"):
        TrainingPlan.load(tmp_path / "broken.toml")


# The digest of plan() as the first version wrote it: sites hold approvals of such plans, so a new key must not change them.
FIRST = "e7c7ec43143ada49becda5d8e5894b3dbf619983383d1d6685794cd897eee02b"


def test_a_plan_written_before_a_key_keeps_its_digest() -> None:
    assert plan().digest == FIRST
    assert plan(privacy=TABLES["privacy"] | {"vote_epsilon": 1.0}).digest != FIRST


def test_a_new_key_that_is_used_is_part_of_the_digest() -> None:
    each = plan(release=TABLES["release"] | {"guidance_of": {"age": 2.0}})
    small = plan(preset="small", start="scratch")
    discrete = plan(quantizer="fsq:15")
    assert len({plan().digest, each.digest, small.digest, plan(start="scratch").digest, discrete.digest}) == 5
    assert (discrete.levels, plan().levels) == (15, None)
    for changed in (each, small, discrete):
        assert TrainingPlan.from_json(changed.canonical()) == changed
    assert each.release.weights == {"age": 2.0}
    assert plan().release.weights == 1.0
    assert small.model.shape == (96, 96, 96)


SUMS = {"mechanism": "secure-sum", "epsilon": 3.0, "delta": 1e-5,
        "secure_sum": {"fallback_epsilon": 8.0, "dropped": 0, "colluding": 0}}  # fmt: skip
ONE_STEP = [TABLES["stages"][0] | {"local_steps": 1}]


def summed(**rests_on: Any) -> dict[str, Any]:
    return SUMS | {"secure_sum": SUMS["secure_sum"] | rests_on}  # type: ignore[operator]  # a table


def test_a_plan_may_ask_for_secure_sums_and_one_without_says_nothing_of_them() -> None:
    asked = plan(privacy=SUMS, stages=ONE_STEP, federation={"quorum": 2, "deadline_s": 60.0})
    assert TrainingPlan.from_json(asked.canonical()) == asked
    assert asked.privacy.secure_sum is not None
    assert asked.privacy.secure_sum.grid == 2**14
    assert "secure_sum" not in plan().canonical()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy": {**SUMS, "mechanism": "local"}}, "go together; write both or neither"),
        ({"privacy": {key: value for key, value in SUMS.items() if key != "secure_sum"}}, "go together; write both or neither"),
        ({"privacy": summed(fallback_epsilon=2.0)}, "fallback_epsilon=2 is below epsilon=3"),
        ({"privacy": summed(colluding=1)}, "2 sites cannot hide one when 0 may drop out and 1 collude"),
        ({"privacy": summed(dropped=1)}, "2 sites cannot hide one when 1 may drop out"),
        ({"privacy": summed(dropped=-1)}, "dropped"),
        ({"privacy": summed(grid=2)}, "grid"),
        ({"stages": TABLES["stages"]}, "one global step; write local_steps = 1, 3 x the rounds"),
        ({"federation": {"quorum": 1, "deadline_s": 60.0}}, "quorum=1, but a secure sum over 2 sites opens with 2"),
        ({"federation": {"quorum": 2, "deadline_s": 60.0, "aggregate": {"rule": "median"}}}, "needs each site's update"),
    ],
)
def test_sums_that_cannot_be_taken_are_refused_in_words(changes: dict[str, Any], said: str) -> None:
    tables = {"privacy": SUMS, "stages": ONE_STEP, "federation": {"quorum": 2, "deadline_s": 60.0}}
    with pytest.raises(PlanRefused, match=said):
        plan(**tables | changes)


def test_a_pull_is_refused_where_it_does_nothing_or_overshoots() -> None:
    stage = TABLES["stages"][0] | {"local_steps": 4, "learning_rate": 0.5, "proximal": 0.1}
    pulled = plan(stages=[stage | {"share": 1.0}])
    assert "proximal" in pulled.canonical()
    assert TrainingPlan.from_json(pulled.canonical()) == pulled
    assert "proximal" not in plan().canonical(), "plans written before the key keep their digest"
    refused = [({"local_steps": 1}, "does nothing"), ({"proximal": 2.0}, "below 1/learning"), ({"proximal": -1}, "proximal")]
    for wrong, why in refused:
        with pytest.raises(PlanRefused, match=why):
            plan(stages=[stage | {"share": 1.0} | wrong])


def test_a_mean_is_learned_by_a_population_alone() -> None:
    stage = TABLES["stages"][0] | {"name": "generator", "trainable": "group:population", "learns": "mean", "share": 1.0}
    learned = plan(stages=[stage])
    assert '"learns":"mean"' in learned.canonical()
    assert plan(stages=[stage | {"trainable": "group:place"}]).stages[0].learns == "mean"
    assert TrainingPlan.from_json(learned.canonical()) == learned
    assert "learns" not in plan().canonical(), "plans written before the key keep their digest"
    for wrong in ({"trainable": "all"}, {"name": "decoder", "trainable": "group:style"}):
        with pytest.raises(PlanRefused, match="whole flow"):
            plan(stages=[stage | wrong])


def test_a_spread_comes_after_the_mean_it_is_measured_from_and_trains_all_of_its_numbers() -> None:
    mean = TABLES["stages"][0] | {"name": "generator", "trainable": "group:place", "learns": "mean", "share": 0.5}
    spread = TABLES["stages"][0] | {"name": "spread", "trainable": "all", "share": 0.5}
    learned = plan(stages=[mean, spread])
    assert learned.spreads
    assert not plan().spreads
    assert [stage.once for stage in learned.stages] == [True, True]
    assert not plan().stages[0].once
    assert TrainingPlan.from_json(learned.canonical()) == learned
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"stages": [spread, mean]}, "after stage generator"),
        ({"stages": [mean, spread | {"trainable": "lora:2"}]}, "few numbers"),
        ({"stages": [mean, spread], "start": "scratch"}, "the prior's people"),
    )
    for wrong, why in refused:
        with pytest.raises(PlanRefused, match=why):
            plan(**wrong)


def asking(**cell: Any) -> dict[str, Any]:
    return {**TABLES, "release": {"seed": 1, "cells": [{"count": 1, "conditions": {}, **cell}]}}


BOTH = asking(modalities=["T1w", "FLAIR"])


def test_modalities_are_those_that_any_cell_asks_for_and_a_plan_without_says_nothing_of_them() -> None:
    plain, asked = (TrainingPlan.from_json(json.dumps(tables)) for tables in (asking(), asking(modalities=["T1w", "FLAIR"])))
    assert (plain.modalities, asked.modalities) == (("T1w",), ("T1w", "FLAIR"))
    assert "modalities" not in plain.canonical()
    assert plain.digest == TrainingPlan.from_json(json.dumps(asking(modalities=["T1w"]))).digest != asked.digest
    assert TrainingPlan.from_json(asked.canonical()) == asked


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (asking(modalities=["FLAIR"]), "begin with T1w, from which the others are made"),
        (asking(modalities=["T1w", "T1w"]), "name each once"),
        (asking(modalities=["T1w", "T2w"]), "'T1w' or 'FLAIR'"),
        (asking(modalities=[]), "at least 1"),
        (BOTH | {"start": "scratch"}, "needs the weights beside the prior"),
        ({**TABLES, "stages": [TABLES["stages"][0] | {"name": "contrast"}]}, "no cell has one"),
        (BOTH | {"stages": [TABLES["stages"][0] | {"trainable": "lora:2"}]}, "moves the latents"),
        (BOTH | {"stages": [TABLES["stages"][0] | {"name": "encoder", "trainable": "all"}]}, "moves the latents"),
    ],
)
def test_modalities_that_cannot_be_made_are_refused_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanRefused) as refused:
        TrainingPlan.from_json(json.dumps(changes))
    assert said in str(refused.value)
