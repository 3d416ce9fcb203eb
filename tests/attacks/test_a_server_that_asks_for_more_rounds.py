"""The server asks for more rounds than were agreed: past the end, before the beginning, or by numbers that are none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from privacy.ledger import Ledger
from tests.client.studies import Scans, charges, request, site, study

PLAN = study()


@pytest.mark.parametrize("number", [0, -1, 3, 10**9, True, 1.0, math.nan, "1", None])
def test_a_round_beyond_the_plan_is_refused(tmp_path: Path, number: object) -> None:
    scans = Scans()
    answer = site(tmp_path, scans=scans).round(replace(request(PLAN), round=number))
    assert (answer.header["code"], answer.values) == ("plan-refused", None)
    assert charges(tmp_path) == 0
    assert scans.read == 0, "nobody's scans are looked at for it"


@pytest.mark.slow
def test_a_server_that_never_stops_asking_gets_the_plan_s_rounds_and_its_epsilon(tmp_path: Path) -> None:
    here, agreed = site(tmp_path), sum(stage.rounds for stage in PLAN.stages)
    answers = [here.round(request(PLAN, stage.name, number)) for stage in PLAN.stages for number in range(1, stage.rounds + 4)]
    assert [answer.header["kind"] for answer in answers].count("update") == agreed
    assert {answer.header["code"] for answer in answers if answer.values is None} == {"plan-refused"}
    with Ledger(tmp_path / "north" / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        assert len(ledger.events) == agreed
        assert ledger.epsilon <= PLAN.privacy.epsilon
