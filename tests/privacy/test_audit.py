"""An attacker with the released gradients: what he learns of correct code is less than claimed, of broken code more."""

from __future__ import annotations

import math

import pytest

from privacy.audit import Audit, Setting, audit
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.steps import DpSgd
from tests.privacy.broken import BUGS
from tests.privacy.planted_bugs import CORRECT, Row, once


def test_correct_code_is_neither_refuted_nor_warned_about() -> None:
    found = audit(DpSgd())
    assert not found.refuted
    assert not found.warned
    assert found.claimed == pytest.approx(1.94, abs=0.01)
    assert found.claimed <= found.covering <= 1.05 * found.claimed
    assert 0 <= found.f_dp < found.claimed


@pytest.mark.parametrize("bug", ["noise over the root of the batch", "clipping per scan", "the same noise again"])
def test_broken_code_is_refuted(bug: str) -> None:
    found = audit(BUGS[bug]())
    assert found.refuted
    assert found.warned


def test_half_the_noise_is_seen_though_not_always_proved() -> None:
    found = audit(BUGS["half the noise"](), Setting(canaries=2000))
    assert found.gaussian > 0.5 * found.claimed, "five deviations below what it usually is, and above correct code"


def test_a_run_of_the_matrix_says_who_caught_what() -> None:
    assert once("no noise") == (True, True, True)


def test_a_row_asks_for_19_of_20_and_for_no_false_alarm() -> None:
    assert Row("no noise", 20, 19, 0, 0, 19).as_it_should_be
    assert not Row("no noise", 20, 18, 0, 0, 18).as_it_should_be
    assert Row(CORRECT, 20, 0, 0, 0, 0).as_it_should_be
    assert not Row(CORRECT, 20, 0, 1, 0, 1).as_it_should_be


def test_a_bound_that_is_not_a_number_refutes() -> None:
    assert Audit(1.0, 1.0, math.nan, 0.0, 0.0, 1e-5).refuted
    assert Audit(1.0, 1.0, 0.0, 0.0, math.nan, 1e-5).warned


@pytest.mark.parametrize("wrong", [{"canaries": 99}, {"patients": 0}, {"confidence": 1.0}, {"confidence": math.nan}])
def test_an_audit_that_could_refute_nothing_is_not_run(wrong: dict[str, float]) -> None:
    with pytest.raises(MechanismRefused):
        Setting(event=SampledGaussian("audit", 3.5, 0.25, 40), **wrong)  # type: ignore[arg-type]  # wrong values are the test
