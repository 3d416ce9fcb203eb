"""A vote or a census is asked for under a plan that the hospital never agreed to, or agrees to no longer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.candidate_files import write_part
from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.errors import PlanRefused
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from client.release import tell_census, vote
from privacy.errors import SignatureRefused
from privacy.events import RandomisedResponse
from privacy.ledger import Ledger
from privacy.signing import SigningKey
from tests.client.studies import study
from tests.consortium import Study, begun, write_site_file

PRESET = PRESETS["tiny"]
VOTING = study(privacy={"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "vote_epsilon": 3.0})
Ask = Callable[[Study, Path], None]


def ask_for_a_vote(one: Study, plan: Path) -> None:
    vote(one.site, plan, one.place / "candidates", 1, one.place / "answer.json")


def ask_for_a_census(one: Study, plan: Path) -> None:
    tell_census(one.site, plan, one.place / "answer.json")


@pytest.fixture
def one(tmp_path: Path) -> Study:
    return begun(tmp_path, VOTING)


@pytest.fixture
def candidates(tmp_path: Path) -> Tensor:
    volumes = torch.stack([volume for volume, _ in phantoms(PRESET, 3, 5, Hospital(name="x"))])
    (tmp_path / "candidates").mkdir()
    write_part(tmp_path / "candidates", VOTING.digest, 0.88, 0, len(volumes), volumes)
    return volumes


def nothing_happened(one: Study) -> bool:
    return not (one.place / "answer.json").exists() and not (one.site.folder / "ledger.jsonl").exists()


@pytest.mark.parametrize("ask", [ask_for_a_vote, ask_for_a_census])
def test_without_an_approval_nothing_is_answered_or_paid(one: Study, candidates: Tensor, ask: Ask) -> None:
    with pytest.raises(PlanRefused, match="was not approved here"):
        ask(one, one.sent())
    with pytest.raises(SignatureRefused):
        ask(one, one.sent(by=SigningKey.generate()))
    assert nothing_happened(one)


@pytest.mark.parametrize("ask", [ask_for_a_vote, ask_for_a_census])
def test_a_policy_that_became_stricter_ends_it(one: Study, candidates: Tensor, ask: Ask) -> None:
    one.approve()
    write_site_file(one.site.folder, {"epsilon": 1.0, "smallest_cohort": 8})
    with pytest.raises(PlanRefused, match="policy forbids"):
        ask(one, one.sent())
    assert nothing_happened(one)


@pytest.mark.slow
def test_under_an_approved_plan_the_vote_is_cast_and_paid(one: Study, candidates: Tensor) -> None:
    write_bids(one.site.data, phantoms(PRESET, 2, 9, Hospital(name="x")), PRESET, 2)
    one.approve()
    ask_for_a_vote(one, one.sent())
    answer = json.loads((one.place / "answer.json").read_text())
    assert (answer["kind"], len(answer["bits"])) == ("vote", 3)
    with Ledger(one.site.folder / "ledger.jsonl", 1e-5) as ledger:
        assert ledger.events == (RandomisedResponse("copies", 3.0),)
