"""An attacker with the released gradients: what he learns of correct code is less than claimed, of broken code more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from torch import nn

from privacy.audit import BOUND, Audit, Setting, audit, numbers
from privacy.dp_sgd import RowLoss, Rows
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian, SecureSummed
from privacy.integer_noise import rounded_bound
from privacy.mechanism import Tensors
from privacy.steps import DpSgd, SumOverSites
from tests.privacy.broken import BUGS
from tests.privacy.planted_bugs import CORRECT, Row, once


@pytest.mark.slow
def test_correct_code_is_neither_refuted_nor_warned_about() -> None:
    found = audit(DpSgd())
    assert not found.refuted
    assert not found.warned
    assert found.claimed == pytest.approx(1.94, abs=0.01)
    assert found.claimed <= found.covering <= 1.05 * found.claimed
    assert 0 <= found.f_dp < found.claimed


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["noise over the root of the batch", "clipping per scan", "the same noise again"])
def test_broken_code_is_refuted(bug: str) -> None:
    found = audit(BUGS[bug]())
    assert found.refuted
    assert found.warned


SUM = SecureSummed("audit", (3.5 * 4096) ** 2, rounded_bound(BOUND, 4096.0, numbers(1000)), numbers(1000), 0.25, 10, 2)


@pytest.mark.slow
def test_a_sum_with_less_noise_than_it_says_is_refuted() -> None:
    honest = audit(SumOverSites(4096.0), Setting(event=SUM))
    assert not honest.refuted
    assert not honest.warned

    class Short(SumOverSites):
        def private_gradient(
            self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SecureSummed
        ) -> Tensors:
            return super().private_gradient(
                model, patients, row_loss, l2_bound, replace(event, noise_variance=event.noise_variance / 100)
            )

    assert audit(Short(4096.0), Setting(event=SUM)).refuted
    with pytest.raises(MechanismRefused, match="secure sum"):
        audit(DpSgd(), Setting(event=SUM))


@pytest.mark.slow
def test_half_the_noise_is_seen_though_not_always_proved() -> None:
    found = audit(BUGS["half the noise"](), Setting(canaries=2000))
    assert found.gaussian > 0.5 * found.claimed, "five deviations below what it usually is, and above correct code"


@pytest.mark.slow
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
