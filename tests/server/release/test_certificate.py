"""A certificate has 47 statements, promises nothing that is not recomputed, and uses no word that it may not."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
from pydantic import ValidationError

from braing3n_core.budget import SecureSum
from braing3n_core.errors import IntegrityError
from braing3n_core.plan import TrainingPlan
from privacy.accountant import epsilon, epsilon_alone
from privacy.events import NonPrivate, SampledGaussian, SecureSummed
from server.release.accounts import Account, account, refuse_untrue
from server.release.certificate import COUNT, FILE, PAGE, Certificate, certificate, page, refuse_false
from server.release.certificate_words import EVIDENCE, Known, meaning
from server.release.gates import Gate
from tests.server.release.conftest import Signed
from tests.server.release.hospitals import EDITION

GATES = tuple(Gate(name, True, f"{name} is fine", "fine") for name in ("budget", "copies", "anatomy", "diversity", "condition"))
EVENTS = [SampledGaussian("decoder", 4.0, 0.2, 8), SampledGaussian("generator", 4.0, 0.2, 12)]


def known(plan: TrainingPlan, **changes: object) -> Known:
    rows = [account(plan, site.name, EVENTS, 0.0, None) for site in plan.sites]
    return dataclasses.replace(Known(plan, EDITION, 6, "b" * 64, rows, GATES, ["Dice: 0.9 (baseline 0.8)"]), **changes)


@pytest.fixture
def stated(plan: TrainingPlan) -> Certificate:
    return certificate(known(plan))


def test_all_47_statements_are_there_in_order_and_in_eight_sections(stated: Certificate) -> None:
    assert [said.number for said in stated.statements] == list(range(1, COUNT + 1))
    ends = {said.section: said.number for said in stated.statements}
    assert ends == {"A": 5, "B": 9, "C": 14, "D": 24, "E": 32, "F": 37, "G": 41, "H": 47}
    assert stated.statements[-1].text == EVIDENCE
    assert "not recorded" in stated.statements[11].text, "what is not known is said, not left out"


def test_it_reads_back_and_its_numbers_are_those_of_its_events(stated: Certificate, plan: TrainingPlan) -> None:
    assert Certificate.read(stated.as_json()) == stated
    assert stated.epsilon == pytest.approx(epsilon(EVENTS, 1e-4))
    refuse_false(plan, stated)


@pytest.mark.parametrize("word", ["anonymous", "Anonymised", "GDPR compliant", "no privacy risk", "cannot be re-identified"])
def test_a_forbidden_word_never_gets_into_a_certificate(plan: TrainingPlan, word: str) -> None:
    with pytest.raises(ValidationError, match="forbidden word"):
        certificate(known(plan, quality=[f"the images are {word}"]))


def test_without_privacy_nothing_is_promised(plan: TrainingPlan) -> None:
    bare = plan.but(privacy=plan.privacy.model_copy(update={"mechanism": "non-private"}))
    rows = [account(bare, site.name, [NonPrivate("decoder")], math.inf, None) for site in bare.sites]
    stated = certificate(known(bare, accounts=rows))
    assert stated.epsilon == "infinite"
    assert all("nothing is promised" in said.text for said in stated.statements if said.section == "D")
    assert "No privacy guarantee." in page(stated)
    refuse_false(bare, stated)


def test_what_was_told_of_a_stage_s_fit_is_stated(plan: TrainingPlan, stated: Certificate) -> None:
    telling = plan.but(privacy=plan.privacy.model_copy(update={"fit_share": 0.05}))
    (noise,) = [said.text for said in certificate(known(telling)).statements if said.title == "Noise and sampling"]
    assert noise.endswith("; fit: every patient in each of 4 noised sums of clipped losses")
    assert not any("clipped losses" in said.text for said in stated.statements)


def test_a_site_that_did_not_sign_is_never_shown_as_if_it_had(stated: Certificate) -> None:
    assert all(row.head is None for row in stated.sites)
    assert "no site signed" in stated.statements[41].text
    assert "not signed by the site" in page(stated)


def test_what_a_site_said_counts_when_it_is_more_than_the_server_saw(plan: TrainingPlan) -> None:
    row = account(plan, "site-a", EVENTS, 7.0, None)
    assert row.epsilon == 7.0
    refuse_untrue(plan, row)
    with pytest.raises(IntegrityError, match="its events cost"):
        refuse_untrue(plan, row.model_copy(update={"epsilon": 0.1}))


@pytest.mark.parametrize(("change", "why"), [
    ({"delta": 1e-9}, "other terms"), ({"agreed": 80.0}, "other terms"), ({"declared_patients": 10_000}, "other terms"),
])  # fmt: skip
def test_other_terms_than_the_plan_s_are_refused(plan: TrainingPlan, change: dict[str, object], why: str) -> None:
    row: Account = account(plan, "site-a", EVENTS, 0.0, None).model_copy(update=change)
    with pytest.raises(IntegrityError, match=why):
        refuse_untrue(plan, row)


def test_a_worst_site_that_is_left_out_of_the_headline_is_noticed(plan: TrainingPlan, stated: Certificate) -> None:
    with pytest.raises(IntegrityError, match="its worst site spent"):
        refuse_false(plan, stated.model_copy(update={"epsilon": 0.2}))
    with pytest.raises(IntegrityError, match="another plan"):
        refuse_false(plan, stated.model_copy(update={"plan": "c" * 64}))


def test_the_page_fetches_nothing_and_runs_nothing(signed: Signed) -> None:
    html = (signed.release / PAGE).read_text()
    assert not re.search(r"<script|<img|<link|https?://|url\(", html)
    assert "default-src 'none'" in html
    stated = Certificate.read((signed.release / FILE).read_bytes())
    for row in stated.sites:
        assert row.head is not None
        assert row.head[:32] in html
    assert "(&epsilon; = " in html


def test_a_signed_certificate_states_the_ledgers_of_its_sites(signed: Signed) -> None:
    stated = json.loads((signed.release / FILE).read_text())
    assert [row["site"] for row in stated["sites"]] == ["site-a", "site-b"]
    kinds = [event["kind"] for event in stated["sites"][0]["events"]]
    assert kinds == ["SampledGaussian", "SampledGaussian", "RandomisedResponse"]


def test_the_plain_words_are_the_bounds_of_the_literature() -> None:
    assert meaning(0.0, 0.0) == (0.5, pytest.approx(0.01))
    posterior, caught = meaning(1.0, 0.0)
    assert posterior == pytest.approx(math.e / (1 + math.e))
    assert caught == pytest.approx(0.01 * math.e)


SUMS = [SecureSummed("decoder", 3e9, 2.0**14, 100, 0.2, 8, 2), SecureSummed("generator", 3e9, 2.0**14, 100, 0.2, 12, 2)]


@pytest.fixture(scope="module")
def summed(plan: TrainingPlan) -> TrainingPlan:
    rests_on = SecureSum(fallback_epsilon=9.0, dropped=0, colluding=0)
    privacy = plan.privacy.model_copy(update={"mechanism": "secure-sum", "secure_sum": rests_on})
    return plan.but(privacy=privacy, stages=[stage.model_copy(update={"local_steps": 1}) for stage in plan.stages])


def test_secure_sums_state_both_guarantees_and_on_whom_they_rest(summed: TrainingPlan) -> None:
    rows = [account(summed, site.name, SUMS, 0.0, None) for site in summed.sites]
    stated = certificate(known(summed, accounts=rows))
    assert stated.epsilon == pytest.approx(epsilon(SUMS, 1e-4))
    assert stated.fallback == pytest.approx(epsilon_alone(SUMS, 1e-4))
    assert Certificate.read(stated.as_json()) == stated
    refuse_false(summed, stated)
    promise = " ".join(said.text for said in stated.statements if said.section == "D")
    for needed in ("a masked sum of whole numbers", "against the server and all 1 other sites together epsilon = ", "9 agreed",
                   "accountant Renyi", "at least 1 of the 1 others are honest"):  # fmt: skip
        assert needed in promise, needed
    assert "Against the server and all other sites together" in page(stated)


@pytest.mark.parametrize("fallback", [None, 0.1, "infinite"])
def test_another_fallback_than_the_events_cost_is_noticed(summed: TrainingPlan, fallback: float | str | None) -> None:
    rows = [account(summed, site.name, SUMS, 0.0, None) for site in summed.sites]
    stated = certificate(known(summed, accounts=rows))
    with pytest.raises(IntegrityError, match="fallback"):
        refuse_false(summed, stated.model_copy(update={"fallback": fallback}))
    with pytest.raises(IntegrityError, match="fallback"):
        refuse_untrue(summed, rows[0].model_copy(update={"fallback": fallback}))


def test_more_than_the_agreed_fallback_is_refused_also_within_epsilon(summed: TrainingPlan) -> None:
    thin = [dataclasses.replace(event, shares=40) for event in SUMS]
    row = account(summed, "site-a", thin, 0.0, None)
    assert row.epsilon != "infinite"
    assert row.epsilon <= row.agreed
    with pytest.raises(IntegrityError, match="of 9 agreed"):
        refuse_untrue(summed, row)


def test_local_noise_needs_no_fallback(stated: Certificate) -> None:
    assert stated.fallback is None
    assert all(row.fallback is None for row in stated.sites)
    assert "Against the server and all other sites" not in page(stated)
