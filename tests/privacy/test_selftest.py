"""The self-test says nothing about the real step and names what is wrong with a broken one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from privacy.dp_sgd import Engine, RowLoss, Rows
from privacy.events import SampledGaussian
from privacy.mechanism import Tensors, l2_norm
from privacy.selftest import FALSE_ALARM, Finding, SelfTest, probe, probe_loss, run
from privacy.steps import DpSgd, GaussianStep
from tests.privacy.broken import BUGS, gradients

Key = TypeVar("Key")
CAUGHT_BY = {
    "no noise": {"noise size", "noise shape", "noise between steps", "noise within a step", "noise beside patients"},
    "half the noise": {"noise size", "noise shape", "noise beside patients"},
    "noise 20 % short": {"noise size", "noise shape", "noise beside patients"},
    "noise over the root of the batch": {"noise beside patients"},
    "no clipping": {"sensitivity"},
    "clipping per scan": {"sensitivity"},
    "one parameter left out of the norm": {"sensitivity"},
    "twice the accounted rate": {"participation", "participation of couples", "participation twice running"},
    "the same noise again": {"noise between steps", "noise beside patients"},
    "a loss of shape (B, 1)": {"sensitivity"},
}


def broken_invariants(step: GaussianStep) -> set[str]:
    return {finding.invariant for finding in run(step).findings if not finding.holds}


@pytest.mark.parametrize("engine", ["fast", "loop", "opacus"])
def test_the_real_step_passes(engine: Engine) -> None:
    result = run(DpSgd(engine))
    assert result.passed, result
    assert len(result.findings) == 9


@pytest.mark.parametrize("bug", BUGS)
def test_a_broken_step_is_caught_for_what_is_broken(bug: str) -> None:
    by_chance = {"noise size", "noise shape"} if bug == "the same noise again" else set()       # one draw, counted four times
    found = broken_invariants(BUGS[bug]())
    assert CAUGHT_BY[bug] <= found <= CAUGHT_BY[bug] | by_chance


def test_every_probe_patient_has_a_gradient_far_above_the_bound_in_every_layer() -> None:
    model, people = probe()
    for gradient in gradients(model, people[:-1], probe_loss):
        whole = l2_norm(gradient)
        assert whole > 100
        assert all(float(tensor.norm()) > 0.005 * whole for tensor in gradient.values()), "any one left out must show"


class FixedBatches(DpSgd):
    """Everybody equally often, in batches of one size: what a data loader does."""

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        return [patients[i] for i in torch.randperm(len(patients))[: round(rate * len(patients))].tolist()]


class OncePerEpoch(DpSgd):
    def __init__(self) -> None:
        super().__init__()
        self._left: list[int] = []

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        if not self._left:
            self._left = torch.randperm(len(patients)).tolist()
        batch, self._left = self._left[: round(rate * len(patients))], self._left[round(rate * len(patients)) :]
        return [patients[i] for i in batch]


class Uniform(DpSgd):
    """Noise of the right variance and another shape."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        total = self.clipped_sum(model, patients, row_loss, l2_bound)
        width = event.noise_multiplier * l2_bound * 12**0.5
        return {name: tensor + width * (torch.rand_like(tensor) - 0.5) for name, tensor in total.items()}


class OneDrawForTwoTensors(DpSgd):
    """Half of a step's noise is the other half again."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        noisy = super().private_gradient(model, patients, row_loss, l2_bound, event)
        flat = torch.cat([tensor.flatten() for tensor in noisy.values()])
        half = len(flat) // 2
        return {"flat": torch.cat([flat[:half], flat[:half]])}


class SkippedEmptyBatch(DpSgd):
    """An empty batch releases nothing, so that its emptiness is seen."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        noisy = super().private_gradient(model, patients, row_loss, l2_bound, event)
        return noisy if patients else {name: torch.zeros_like(tensor) for name, tensor in noisy.items()}


class NanPasses(DpSgd):
    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        total: dict[str, Tensor] = {}
        for gradient in gradients(model, patients, row_loss):
            norm = l2_norm(gradient)
            for name, tensor in gradient.items():
                total[name] = total.get(name, torch.zeros_like(tensor)) + tensor * min(1.0, l2_bound / norm)
        return total


@pytest.mark.parametrize(
    ("step", "invariant"),
    [
        (FixedBatches, "participation of couples"),
        (OncePerEpoch, "participation twice running"),
        (Uniform, "noise shape"),
        (OneDrawForTwoTensors, "noise within a step"),
        (SkippedEmptyBatch, "noise size"),
        (NanPasses, "sensitivity"),
    ],
)
def test_what_keeps_the_averages_right_is_caught_too(step: type[GaussianStep], invariant: str) -> None:
    assert invariant in broken_invariants(step())


def test_one_broken_invariant_is_enough_to_fail() -> None:
    assert SelfTest((Finding("a", True, ""),)).passed
    assert not SelfTest((Finding("a", True, ""), Finding("b", False, ""))).passed
    assert FALSE_ALARM <= 1e-6
