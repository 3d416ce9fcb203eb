"""The server asks for a stage that is not in the plan: another name, another spelling, or one of another plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.client.studies import Scans, charges, request, site, stage, study

PLAN = study()
WHOLE = study(stages=[stage("encoder", "all"), stage("decoder", "group:style")])


@pytest.mark.parametrize("name", ["encoder", "", "decoder ", "Decoder", "../decoder", "decoder\0", "census", None])
def test_a_stage_beyond_the_plan_is_refused(tmp_path: Path, name: object) -> None:
    scans = Scans()
    answer = site(tmp_path, scans=scans).round(replace(request(PLAN), stage=name))
    assert (answer.header["code"], answer.values) == ("plan-refused", None)
    assert charges(tmp_path) == 0
    assert scans.read == 0, "nobody's scans are looked at for it"


def test_a_stage_of_another_plan_is_refused_with_the_values_that_fit_it(tmp_path: Path) -> None:
    """All of the encoder, of which the agreed plan trains nothing."""
    greedy = request(WHOLE, "encoder")
    for asked in (greedy, replace(greedy, plan=PLAN.digest)):
        answer = site(tmp_path).round(asked)
        assert (answer.header["code"], answer.values) == ("plan-refused", None)
    assert charges(tmp_path) == 0


def test_the_agreed_stage_s_name_buys_no_more_than_that_stage_trains(tmp_path: Path) -> None:
    asked = replace(request(WHOLE, "encoder"), plan=PLAN.digest, stage="decoder")
    answer = site(tmp_path).round(asked)
    assert (answer.header["code"], answer.values) == ("request-refused", None)
    assert charges(tmp_path) == 0
