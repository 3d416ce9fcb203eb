"""An operator reads in words what a plan would send and cost, and what this hospital forbids."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from braing3n_core import bundle
from braing3n_core.errors import PlanRefused
from braing3n_core.plan import TrainingPlan
from client import review as module
from client.review import in_words, review
from client.status import in_words as status_in_words
from client.status import status
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from tests.client.studies import stage, study
from tests.consortium import BUNDLE, Study, begun

SITES = [{"name": "north", "patients": 40}, {"name": "south", "patients": 60}]
PLAN = study(sites=SITES, stages=[stage("decoder", "group:style", rounds=3), stage("generator", "group:conditions")])


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(module, "installed_digest", lambda: BUNDLE)
    return begun(tmp_path, PLAN)


def test_every_question_an_operator_asks_has_its_line(one: Study) -> None:
    said = "\n".join(in_words(review(one.site, one.sent())))
    for needed in (PLAN.digest, one.admin.public.fingerprint[:16], "no code comes with the plan", "south (60 patients)",
                   "decoder    3 messages of", "so far 0, this plan", "of 8 allowed here", "may be approved"):  # fmt: skip
        assert needed in said, needed


def test_the_cost_is_the_plan_s_and_what_was_spent_before_counts(one: Study) -> None:
    fresh = review(one.site, one.sent())
    assert fresh.spent == 0
    assert 7.9 < fresh.alone == fresh.together <= 8
    with Ledger(one.site.folder / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        ledger.reserve(SampledGaussian("decoder", 1.0, 0.5, 4), "f" * 64 + "/decoder/1", 8.0)
        before = ledger.epsilon
    again = review(one.site, one.sent())
    assert again.spent == pytest.approx(before)
    assert again.together > max(again.alone, again.spent)
    assert any("a patient comes to epsilon" in line for line in again.objections)
    assert json.loads(again.as_json())["may_be_approved"] is False


def test_rounds_of_this_very_plan_are_not_counted_twice(one: Study) -> None:
    with Ledger(one.site.folder / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        ledger.reserve(SampledGaussian("decoder", 5.0, 0.5, 2), f"{PLAN.digest}/decoder/1", 8.0)
    found = review(one.site, one.sent())
    assert (found.spent, found.together) == (0, found.alone)


def test_a_history_without_privacy_is_told_as_infinite(one: Study) -> None:
    from privacy.events import NonPrivate

    with Ledger(one.site.folder / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        ledger.reserve(NonPrivate("decoder"), "f" * 64 + "/decoder/1", math.inf)
    found = review(one.site, one.sent())
    assert json.loads(found.as_json())["together"] == "infinite"
    assert found.objections


def test_what_is_forbidden_and_what_would_run_are_said(one: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_digest", lambda: "c" * 64)
    found = review(one.site, one.sent())
    assert found.objections == ("the plan was signed for another app bundle than this version makes; it must be signed again",)
    assert "it may not be approved" in list(in_words(found))


def test_status_tells_what_runs_and_what_does_not_and_why(one: Study) -> None:
    assert any("no plan was approved" in line for line in status_in_words(status(one.site)))
    one.approve()
    with Ledger(one.site.folder / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        ledger.reserve(SampledGaussian("decoder", 5.0, 0.5, 2), f"{PLAN.digest}/decoder/1", 8.0)
    found = status(one.site)
    (state,) = found.plans
    assert (state.runs, state.paid, state.rounds, state.study) == (True, 1, 5, "small")
    assert 0 < found.spent < 8
    (one.site.folder / "plans" / PLAN.digest / "approval.json").unlink()
    (state,) = status(one.site).plans
    assert not state.runs
    assert "was not approved here" in state.why
    assert json.loads(status(one.site).as_json())["plans"][0]["paid"] == 1


def test_the_installed_bundle_has_one_digest_and_no_code(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's and Click's own
        assert bundle.installed_digest() == bundle.installed_digest()


def test_a_file_that_is_no_plan_is_refused_in_words(one: Study, tmp_path: Path) -> None:
    for content in ("", "[]", "{}"):
        path = tmp_path / "file.json"
        path.write_text(content)
        with pytest.raises(Exception, match=r"ask for the file again|not a DSSE envelope"):
            review(one.site, path)
    with pytest.raises(PlanRefused, match="name the file that the consortium sent"):
        review(one.site, tmp_path / "none.json")
    assert TrainingPlan.from_json(PLAN.canonical()) == PLAN
