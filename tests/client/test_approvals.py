"""A hospital works on nothing that the consortium did not sign and it did not sign back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.agreement import Approval, read_envelope
from braing3n_core.errors import IntegrityError, PlanRefused
from client.approvals import all_approved, approve, approved, read_agreement
from privacy.errors import SignatureRefused
from privacy.signing import SigningKey
from tests.client.studies import study
from tests.consortium import BUNDLE, begun, write_site_file


def test_an_approved_plan_is_found_by_its_digest(tmp_path: Path) -> None:
    one = begun(tmp_path)
    path = one.approve()
    assert approved(one.site, one.plan.digest) == one.agreement()
    kept = Approval.opened(read_envelope(path), one.keys["north"].public)
    assert kept.covers("north", one.agreement())
    assert [digest for digest, _ in all_approved(one.site)] == [one.plan.digest]


def test_the_approval_names_the_exact_agreement_and_no_other(tmp_path: Path) -> None:
    one = begun(tmp_path)
    kept = Approval.opened(read_envelope(one.approve()), one.keys["north"].public)
    assert not kept.covers("south", one.agreement())
    assert not kept.covers("north", one.agreement(bundle="c" * 64))
    assert not kept.covers("north", one.agreement(study(seed=2)))


def test_a_plan_nobody_approved_is_refused(tmp_path: Path) -> None:
    one = begun(tmp_path)
    for digest in (one.plan.digest, "", "../../etc", "A" * 64):
        with pytest.raises(PlanRefused):
            approved(one.site, digest)


def test_a_plan_signed_by_somebody_else_is_refused(tmp_path: Path) -> None:
    one = begun(tmp_path)
    with pytest.raises(SignatureRefused):
        one.approve(one.sent(by=SigningKey.generate()))
    with pytest.raises(SignatureRefused):
        one.approve(one.sent(by=one.keys["south"]))
    assert list(all_approved(one.site)) == []


def test_what_the_policy_forbids_is_neither_approved_nor_run(tmp_path: Path) -> None:
    one = begun(tmp_path, epsilon=1.0)
    with pytest.raises(PlanRefused, match="policy forbids"):
        one.approve()
    write_site_file(tmp_path / "north", {"epsilon": 8.0, "smallest_cohort": 8})
    one.approve()
    approved(one.site, one.plan.digest)
    write_site_file(tmp_path / "north", {"epsilon": 1.0, "smallest_cohort": 8})
    with pytest.raises(PlanRefused, match="policy forbids"):
        approved(one.site, one.plan.digest)


@pytest.mark.parametrize("change", [{"bundle": "c" * 64}, {"version": "0.0.0"}])
def test_other_code_than_what_is_installed_is_not_approved(tmp_path: Path, change: dict[str, str]) -> None:
    one = begun(tmp_path)
    with pytest.raises(IntegrityError, match="was signed for"):
        one.approve(one.sent(one.agreement(**change)))


def test_a_plan_with_another_key_for_this_site_is_refused(tmp_path: Path) -> None:
    one = begun(tmp_path)
    one.keys["north"] = SigningKey.generate()
    with pytest.raises(IntegrityError, match="another key for north"):
        read_agreement(one.site, one.sent())


def test_only_the_site_s_own_key_approves(tmp_path: Path) -> None:
    one = begun(tmp_path)
    with pytest.raises(IntegrityError, match="not the one"):
        approve(one.site, one.sent(), one.keys["south"], BUNDLE)


def test_a_new_agreement_on_the_same_plan_needs_a_new_approval(tmp_path: Path) -> None:
    one = begun(tmp_path)
    one.approve()
    kept = tmp_path / "north" / "plans" / one.plan.digest / "agreement.json"
    one.keys["south"] = SigningKey.generate()                # the partner's key changed, signed by the consortium
    kept.write_text(json.dumps(one.agreement().signed(one.admin)))
    with pytest.raises(IntegrityError, match="not what was approved here"):
        approved(one.site, one.plan.digest)
