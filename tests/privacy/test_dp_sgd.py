"""What DP-SGD must never do to a patient, and that independent engines agree on what it does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy.dp_sgd import PoissonSampler, clipped_each, clipped_sum, private_gradient
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.mechanism import l2_norm
from privacy.randomness import ReplayableNoise, SecretNoise


class Net(nn.Module):
    """Every layer kind the project's models use, on (rows, 6, 4, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 5)
        self.norm = nn.LayerNorm(5)
        self.conv = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(torch.nn.functional.gelu(self.linear(x))))


def loss(model: nn.Module, rows: tuple[Tensor, ...]) -> Tensor:
    return model(rows[0]).square().flatten(1).mean(1)


def people(rows: list[int], scale: float = 1.0) -> list[tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return [(scale * torch.randn(k, 6, 4, 2),) for k in rows]


@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.integers(1, 4), max_size=5), bound=st.floats(1e-3, 1e2))
def test_the_engines_agree_on_ragged_patients(rows: list[int], bound: float) -> None:
    torch.manual_seed(1)
    model = Net()
    loop, *others = (clipped_sum(model, people(rows), loss, bound, engine) for engine in ("loop", "fast", "opacus"))
    for other in others:
        assert torch.allclose(loop.norms, other.norms, rtol=1e-5)
        difference = {name: loop.total.tensors[name] - other.total.tensors[name] for name in loop.total.tensors}
        assert l2_norm(difference) <= 1e-5 * max(l2_norm(loop.total.tensors), 1e-9)


@pytest.mark.parametrize("frozen", ["linear", "norm", "conv"])
def test_frozen_layers_enter_neither_norm_nor_sum(frozen: str) -> None:
    model = Net()
    getattr(model, frozen).requires_grad_(False)
    result = clipped_sum(model, people([1, 2]), loss, 1.0)
    assert not any(name.startswith(frozen) for name in result.total.tensors)
    assert torch.allclose(result.norms, clipped_sum(model, people([1, 2]), loss, 1.0, "opacus").norms, rtol=1e-4)


@pytest.mark.parametrize("engine", ["loop", "fast", "opacus"])
def test_one_patient_with_many_scans_moves_the_sum_by_no_more_than_the_bound(engine: str) -> None:
    model, everyone = Net(), people([1, 8, 2, 3], scale=50.0)
    whole = clipped_sum(model, everyone, loss, 0.5, engine).total.tensors
    for left_out in range(4):
        rest = clipped_sum(model, everyone[:left_out] + everyone[left_out + 1 :], loss, 0.5, engine).total.tensors
        moved = l2_norm({name: whole[name] - rest[name] for name in whole})
        assert moved <= 0.5 * (1 + 1e-5)
        assert moved >= 0.5 * (1 - 1e-3), "each of these patients is far above the bound, so clipping must bind"


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_patient_with_a_broken_scan_contributes_nothing_and_harms_nobody(poison: float) -> None:
    model, healthy = Net(), people([2, 1])
    broken = (torch.full((1, 6, 4, 2), poison),)
    with_broken = clipped_sum(model, [*healthy, broken], loss, 1.0).total.tensors
    without = clipped_sum(model, healthy, loss, 1.0).total.tensors
    assert all(torch.equal(with_broken[name], without[name]) for name in without)


def test_an_empty_step_is_a_pure_noise_step() -> None:
    event = SampledGaussian("decoder", 2.0, 0.5, 1, replayable=True)
    gradient = private_gradient(Net(), [], loss, 3.0, event, 4.0, ReplayableNoise(0))
    values = torch.cat([tensor.flatten() for tensor in gradient.values()]).double()
    assert abs(float(values.std()) / (2.0 * 3.0 / 4.0) - 1) < 5 / math.sqrt(2 * values.numel())


def test_replayable_noise_cannot_pass_for_secret() -> None:
    event = SampledGaussian("decoder", 2.0, 0.5, 1)
    with pytest.raises(MechanismRefused, match="state what happened"):
        private_gradient(Net(), [], loss, 1.0, event, 1.0, ReplayableNoise(0))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_no_bound_no_sum(bound: float) -> None:
    with pytest.raises(MechanismRefused):
        clipped_sum(Net(), [], loss, bound)


def test_participation_is_binomial_at_the_accounted_rate() -> None:
    sampler = PoissonSampler[int](0.25, SecretNoise())
    joined = sum(len(sampler.draw(range(200))) for _ in range(60))
    expected, deviation = 200 * 60 * 0.25, math.sqrt(200 * 60 * 0.25 * 0.75)
    assert abs(joined - expected) < 6 * deviation


@given(rows=st.lists(st.integers(1, 4), max_size=5), bound=st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=15, deadline=None)
def test_patients_one_by_one_add_up_to_the_clipped_sum(rows: list[int], bound: float) -> None:
    network, patients = Net(), people(rows)
    each = list(clipped_each(network, patients, loss, bound))
    assert len(each) == len(rows)
    total = clipped_sum(network, patients, loss, bound, "loop").total.tensors
    for one in each:
        assert list(one.tensors) == sorted(total)
        assert l2_norm(one.tensors) <= bound * (1 + 1e-6)
        assert one.l2_bound == bound
    for name, tensor in total.items():
        summed = sum((one.tensors[name].double() for one in each), torch.zeros_like(tensor).double())
        assert torch.allclose(summed, tensor.double(), rtol=1e-5, atol=1e-6 * bound)


def test_one_by_one_a_broken_patient_is_zero_and_the_others_are_what_they_were() -> None:
    network, patients = Net(), people([2, 3])
    before = list(clipped_each(network, patients, loss, 1.0))
    broken = [tuple(tensor * math.nan for tensor in patients[0]), patients[1]]
    first, second = clipped_each(network, broken, loss, 1.0)
    assert l2_norm(first.tensors) == 0
    assert all(torch.equal(second.tensors[name], tensor) for name, tensor in before[1].tensors.items())
