"""What an audit of a recipe says, of sound code and of broken code."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import TrainingPlan
from privacy.audit import Audit
from privacy.selftest import Finding, SelfTest
from simulations.audit import Measured, Row, audit_plan
from tests.client.studies import rehearsal
from tests.summed import summed

SMOKE = Path(__file__).parents[2] / "simulations" / "recipes" / "smoke.toml"
SOUND = Audit(claimed=2.0, covering=2.05, one_run=0.5, f_dp=0.7, gaussian=0.6, delta=1e-5)


def measured(found: Audit, *, holds: bool = True) -> Measured:
    return Measured(SelfTest((Finding("sensitivity", holds, "0.7"),)), (Row("decoder", 0.25, 4, found),))


@pytest.mark.slow
def test_a_recipe_that_ships_is_not_refuted_and_every_stage_is_attacked() -> None:
    plan = TrainingPlan.load(SMOKE)
    found = audit_plan(plan)
    assert found.passed, found
    assert [row.stage for row in found.rows] == [stage.name for stage in plan.stages]
    assert [row.sample_rate for row in found.rows] == [stage.sample_rate for stage in plan.stages]
    assert all(1.95 < row.found.claimed <= 2.0 for row in found.rows)
    assert len(found.selftest.findings) == 9


@pytest.mark.parametrize(
    ("change", "passed", "said"),
    [
        ({}, True, "not refuted"), ({"f_dp": 2.1}, False, "REFUTED"), ({"one_run": 2.1}, False, "REFUTED"),
        ({"gaussian": 9.0}, True, "warning"), ({"f_dp": math.nan}, False, "REFUTED"),
    ],
)  # fmt: skip
def test_a_refuted_claim_fails_and_a_warning_is_said(change: dict[str, float], passed: bool, said: str) -> None:
    found = measured(dataclasses.replace(SOUND, **change))
    assert found.passed is passed
    assert any(line.endswith(said) for line in found.in_words())


def test_a_broken_invariant_fails_although_nothing_is_refuted() -> None:
    found = measured(SOUND, holds=False)
    assert not found.passed
    assert next(found.in_words()).startswith("BROKEN  sensitivity")


def test_programs_get_every_number() -> None:
    read = json.loads(json.dumps(measured(SOUND).as_json()))
    assert read["passed"] is True
    assert read["rows"][0]["found"]["covering"] == 2.05
    assert (read["rows"][0]["refuted"], read["rows"][0]["warned"]) == (False, False)
    assert read["selftest"][0]["invariant"] == "sensitivity"


def test_a_plan_that_claims_nothing_is_not_audited() -> None:
    with pytest.raises(PlanRefused, match="no claim to audit"):
        audit_plan(rehearsal())


@pytest.mark.slow
def test_sums_over_sites_are_attacked_as_the_server_sees_them() -> None:
    plan = summed()
    found = audit_plan(plan)
    assert found.passed, found
    assert {"noise share", "noise of the sum"} <= {finding.invariant for finding in found.selftest.findings}
    assert all(1.95 < row.found.claimed <= 2.0 and 0 <= row.found.f_dp < row.found.claimed for row in found.rows)
