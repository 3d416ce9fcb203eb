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
from privacy.events import SampledGaussian, SecureSummed
from privacy.ledger import Ledger
from tests.client.studies import stage, study
from tests.consortium import BUNDLE, Study, begun
from tests.summed import summed

SITES = [{"name": "north", "patients": 40}, {"name": "south", "patients": 60}]
PLAN = study(sites=SITES, stages=[stage("decoder", "group:style", rounds=3), stage("generator", "group:conditions")])


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(module, "installed_digest", lambda: BUNDLE)
    return begun(tmp_path, PLAN)


def test_every_question_an_operator_asks_has_its_line(one: Study) -> None:
    said = "\n".join(in_words(review(one.site, one.sent())))
    for needed in (PLAN.digest, one.admin.public.fingerprint[:16], "no code comes with the plan", "south (60 patients)",
                   "decoder    3 messages of", "so far 0, this plan", "of 8 allowed here", "may be approved",
                   "table, loss, count"):  # fmt: skip
        assert needed in said, needed


def test_the_cost_is_the_plan_s_and_what_was_spent_before_counts(one: Study) -> None:
    fresh = review(one.site, one.sent())
    assert fresh.spent == 0
    assert 7.9 < fresh.alone == fresh.together <= 8
    assert fresh.witness == pytest.approx(fresh.together, abs=0.02)
    assert fresh.together <= fresh.renyi
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
        for other in ("census/1", "copies/1", "fit-decoder/1"):
            ledger.reserve(SampledGaussian("census", 50.0, 1.0, 1), f"{PLAN.digest}/{other}", 8.0)
    found = status(one.site)
    (state,) = found.plans
    assert (state.runs, state.paid, state.rounds, state.study) == (True, 1, 5, "small"), "what is no round counts as none"
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


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(module, "installed_digest", lambda: BUNDLE)
    return begun(tmp_path, SUMS, mechanisms=["secure-sum"], fallback_epsilon=13.0)


SUMS = summed(("north", "south", "east"))


def test_a_secure_sum_is_told_with_whom_it_protects_from_and_what_is_left_without_them(sums: Study) -> None:
    found = review(sums.site, sums.sent())
    assert found.objections == ()
    assert found.alone <= 4 < found.alone_fallback == found.fallback <= 12
    said = "\n".join(in_words(found))
    for needed in ("hidden under masks until it is added", "the server sees the sum over at least 3 of 3 hospitals",
                   "the server and up to 1 other hospital that work", "if the other 1 are honest", "up to 0 may be missing",
                   f"epsilon {found.fallback:.3g} by this plan", "of 13 allowed here; the plan states 12",
                   "signed with the hospitals' own", "keys, sealed letters and shares of random secrets"):  # fmt: skip
        assert needed in said, needed


def test_spare_rounds_are_told_and_counted_as_spent(sums: Study) -> None:
    rests_on = SUMS.privacy.secure_sum
    assert rests_on is not None
    spare = SUMS.privacy.model_copy(update={"secure_sum": rests_on.model_copy(update={"spare": 2})})
    without, found = review(sums.site, sums.sent()), review(sums.site, sums.sent(sums.agreement(SUMS.but(privacy=spare))))
    assert [row.messages for row in found.leaves] == [row.messages + 2 for row in without.leaves]
    assert 0.97 * 4 <= found.alone <= 4, "all of the agreed epsilon, the spare rounds' too"
    assert "2 of each are spare" in "\n".join(in_words(found))
    assert "spare" not in "\n".join(in_words(without))


def test_local_noise_is_told_as_a_protection_against_everybody(one: Study) -> None:
    found = review(one.site, one.sent())
    assert found.alone_fallback == found.alone
    assert "against everybody, the server and the other hospitals included" in "\n".join(in_words(found))


def test_sums_that_the_noise_of_one_hospital_does_not_carry_are_forbidden(sums: Study) -> None:
    rests_on = {"fallback_epsilon": 4.1, "dropped": 0, "colluding": 1}
    weak = SUMS.but(privacy=SUMS.privacy.model_dump() | {"secure_sum": rests_on})
    found = review(sums.site, sums.sent(sums.agreement(weak)))
    assert any("more than fallback_epsilon=4.1" in line for line in found.objections)


def test_what_was_spent_before_counts_against_the_fallback_too(sums: Study) -> None:
    with Ledger(sums.site.folder / "ledger.jsonl", 1e-5) as ledger:
        ledger.reserve(SecureSummed("decoder", 9e8, 2.0**14, 32, 0.5, 4, 6), "f" * 64 + "/decoder/1/1", 99.0)
    found = review(sums.site, sums.sent())
    assert any("against the server and all other hospitals together a patient comes to" in line for line in found.objections)


def test_with_no_colluder_counted_in_the_other_hospital_is_named(sums: Study) -> None:
    rests_on = {"fallback_epsilon": 12.0, "dropped": 0, "colluding": 0}
    plan = SUMS.but(privacy=SUMS.privacy.model_dump() | {"secure_sum": rests_on})
    assert "not even against one other hospital" in "\n".join(in_words(review(sums.site, sums.sent(sums.agreement(plan)))))


def test_numbers_on_how_well_a_model_fits_are_told_and_part_of_what_joining_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installed_digest", lambda: BUNDLE)
    telling = PLAN.privacy.model_dump() | {"fit_share": 0.05}
    studied = begun(tmp_path, study(sites=SITES, stages=[one.model_dump() for one in PLAN.stages], privacy=telling))
    found = review(studied.site, studied.sent())
    said = "\n".join(in_words(found))
    assert "fit        4 noised sums of clipped losses" in said
    assert "no scan, table, exact loss, count" in said
    assert 7.9 < found.alone <= 8
    assert any("fit = true in [policy] would allow it" in line for line in found.objections)


def test_a_vote_is_part_of_what_joining_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_digest", lambda: BUNDLE)
    voting = PLAN.privacy.model_dump() | {"vote_epsilon": 2.0, "vote_rounds": 2}
    studied = begun(tmp_path, study(sites=SITES, stages=[one.model_dump() for one in PLAN.stages], privacy=voting))
    found = review(studied.site, studied.sent())
    assert 7.9 < found.alone <= 8
