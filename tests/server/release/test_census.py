"""A release that follows the census waits for it, is drawn from it, and from no other."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from braing3n_core.errors import IntegrityError, PlanRefused, WaitingForSites
from braing3n_core.plan import DEFAULT_VARIABLES, Cell, Release, TrainingPlan
from server.release.candidates import candidates
from server.release.census import FILE, census_document, followed, read_census, refuse_without_census
from server.release.cohort import draw
from server.release.policy import Policy
from tests.client.studies import stage, study

STAGES = [stage("decoder", "group:style", share=0.4), stage("generator", "lora:1", share=0.55)]
FOLLOWING = {"seed": 1, "follow": "census", "cells": [{"count": 60, "conditions": {"age": [70.0, 80.0]}}]}
COUNTED = {"share": 0.05, "bins": 2, "variables": ["age", "sex"]}
PLAN = study(stages=STAGES, census=COUNTED, release=FOLLOWING, federation={"quorum": 2, "deadline_s": 60.0})
SHARES = {"age": (1.0, 0.0), "sex": (0.25, 0.75)}


def sent(folder: Path, site: str, counts: str = "5 -1 3 2 6 9", plan: TrainingPlan = PLAN, kind: str = "census") -> Path:
    path = folder / f"{site}.json"
    path.write_text(json.dumps({"kind": kind, "site": site, "plan": plan.digest, "counts": counts}))
    return path


def test_what_sites_sent_is_pooled_and_kept_for_the_run(tmp_path: Path) -> None:
    files = [sent(tmp_path, "north"), sent(tmp_path, "south", "1 -2 0 0 0 0")]
    assert read_census(PLAN, tmp_path, files) == SHARES
    assert read_census(PLAN, tmp_path, ()) == SHARES
    assert read_census(PLAN, tmp_path, files) == SHARES, "again is the same"
    with pytest.raises(IntegrityError, match="has another census"):
        read_census(PLAN, tmp_path, [files[0], sent(tmp_path, "south", "1 50 0 0 0 0")])


def test_a_release_that_follows_the_census_waits_for_it(tmp_path: Path) -> None:
    assert read_census(PLAN, tmp_path, ()) is None
    with pytest.raises(WaitingForSites, match="no site told it yet"):
        refuse_without_census(PLAN, None)
    with pytest.raises(WaitingForSites, match="1 sites told the census, the quorum is 2"):
        read_census(PLAN, tmp_path, [sent(tmp_path, "north")])
    with pytest.raises(WaitingForSites):
        read_census(PLAN, tmp_path, [sent(tmp_path, "north")] * 2)
    refuse_without_census(study(), None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": "vote"}, IntegrityError),
        ({"plan": study()}, IntegrityError),
        ({"counts": "5 -1 3 2 6"}, IntegrityError),
        ({"counts": "5 -1 3 2 6 nan"}, IntegrityError),
        ({"site": "elsewhere"}, PlanRefused),
    ],
)
def test_what_is_no_site_s_census_of_this_plan_is_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_census(PLAN, tmp_path, [sent(tmp_path, "south"), sent(tmp_path, **({"site": "north"} | changes))])  # type: ignore[arg-type]
    assert not (tmp_path / FILE).exists()


def test_a_kept_census_of_another_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"plan": "0" * 64, "shares": SHARES}))
    with pytest.raises(IntegrityError, match="of another plan"):
        read_census(PLAN, tmp_path, ())


def test_people_are_as_the_cells_ask_and_else_as_the_census_found_them() -> None:
    people = draw(PLAN.release, PLAN.variables, SHARES)
    assert all(70 <= person.conditions["age"] <= 80 for person in people), "a cell's own words come first"
    assert all(person.conditions["diagnosis"] is None for person in people), "what was not counted is left free"
    sexes = Counter(person.conditions["sex"] for person in people)
    assert sexes["M"] > 1.5 * sexes["F"] > 0
    free = draw(Release(seed=3, cells=(Cell(count=50, conditions={}),)), DEFAULT_VARIABLES, SHARES)
    assert all(18.0 <= person.conditions["age"] <= 56.5 for person in free)


def test_a_release_by_cells_is_drawn_as_before_whatever_was_counted() -> None:
    by_cells = study(stages=STAGES, census=COUNTED)
    assert followed(by_cells, SHARES) is None
    assert census_document(by_cells, SHARES) == {}
    assert draw(PLAN.release, PLAN.variables, None) == draw(PLAN.release, PLAN.variables)


def test_spares_follow_the_census_as_well_and_it_is_told_with_the_release() -> None:
    pool = candidates(PLAN.release, PLAN.variables, Policy.load().rules.copies, voted=True, census=SHARES)
    assert len(pool) > 60
    assert all(one.person.conditions["sex"] in ("F", "M") for one in pool)
    document = json.loads(census_document(PLAN, SHARES)["docs/census.json"])
    assert document == {"plan": PLAN.digest, "shares": {"age": [1.0, 0.0], "sex": [0.25, 0.75]}}
