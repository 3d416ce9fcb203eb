"""A plan is changed after the hospital agreed to it: on its way, on the hospital's disk, or by asking for another one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from braing3n_core.agreement import Agreement
from braing3n_core.errors import Braing3nError, IntegrityError, PlanRefused
from client.approvals import approved
from privacy.errors import PrivacyError, SignatureRefused
from privacy.signing import SigningKey
from tests.client.studies import study
from tests.consortium import Study, begun

GREEDY = study(privacy={"mechanism": "local", "epsilon": 7.9, "delta": 1e-5})


@pytest.fixture
def one(tmp_path: Path) -> Study:
    made = begun(tmp_path)
    made.approve()
    return made


def kept(one: Study, name: str) -> Path:
    return one.site.folder / "plans" / one.plan.digest / name


def test_one_changed_number_breaks_the_signature(one: Study) -> None:
    path = kept(one, "agreement.json")
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b'"epsilon":8.0', b'"epsilon":7.5')
    path.write_text(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}))
    with pytest.raises(SignatureRefused):
        approved(one.site, one.plan.digest)


def test_a_second_plan_of_the_same_consortium_is_not_covered_by_the_first_approval(one: Study) -> None:
    other = one.agreement(GREEDY)
    with pytest.raises(PlanRefused, match="was not approved here"):
        approved(one.site, GREEDY.digest)
    kept(one, "agreement.json").write_text(json.dumps(other.signed(one.admin)))
    with pytest.raises(IntegrityError, match="not what was approved"):
        approved(one.site, one.plan.digest)


def test_an_approval_moved_to_another_plan_s_folder_approves_nothing(one: Study) -> None:
    folder = one.site.folder / "plans" / GREEDY.digest
    folder.mkdir()
    (folder / "agreement.json").write_text(json.dumps(one.agreement(GREEDY).signed(one.admin)))
    (folder / "approval.json").write_bytes(kept(one, "approval.json").read_bytes())
    with pytest.raises(IntegrityError):
        approved(one.site, GREEDY.digest)


def test_the_consortium_cannot_approve_in_the_hospital_s_name(one: Study) -> None:
    from braing3n_core.agreement import Approval

    folder = one.site.folder / "plans" / GREEDY.digest
    folder.mkdir()
    agreement = one.agreement(GREEDY)
    (folder / "agreement.json").write_text(json.dumps(agreement.signed(one.admin)))
    for forger in (one.admin, one.keys["south"], SigningKey.generate()):
        (folder / "approval.json").write_text(json.dumps(Approval.of("north", agreement, "now").signed(forger)))
        with pytest.raises(SignatureRefused):
            approved(one.site, GREEDY.digest)


@pytest.mark.parametrize("forger", ["south", "stranger"])
def test_only_the_consortium_s_key_makes_a_plan(one: Study, forger: str) -> None:
    key = one.keys.get(forger, SigningKey.generate())
    with pytest.raises(SignatureRefused):
        one.approve(one.sent(one.agreement(GREEDY), by=key))
    kept(one, "agreement.json").write_text(json.dumps(one.agreement().signed(key)))
    with pytest.raises(SignatureRefused):
        approved(one.site, one.plan.digest)


def test_an_approval_is_not_taken_for_an_agreement_nor_the_other_way(one: Study) -> None:
    envelope = json.loads(kept(one, "approval.json").read_text())
    with pytest.raises(SignatureRefused):
        Agreement.opened(envelope, one.keys["north"].public)
    kept(one, "approval.json").write_bytes(kept(one, "agreement.json").read_bytes())
    with pytest.raises((Braing3nError, PrivacyError)):
        approved(one.site, one.plan.digest)


def test_a_site_whose_key_was_changed_approves_nothing_any_more(one: Study) -> None:
    public = one.site.folder / "keys" / "site.pem.pub"
    public.write_bytes(SigningKey.generate().public.pem)
    with pytest.raises(IntegrityError, match="another key for north"):
        approved(one.site, one.plan.digest)
