"""The sampler against flows whose answer is known on paper."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.flow import Sampler, between, euler, guided, heun, led, time_shift


def test_a_straight_flow_arrives_in_one_step() -> None:
    data, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    assert torch.allclose(heun(lambda z, t: noise - data, noise, 1), data, atol=1e-5)


def test_more_steps_come_closer_to_the_closed_form_of_a_gaussian() -> None:
    """Data N(0, s^2): the marginal at t has variance (1-t)^2 s^2 + t^2, so noise x ends at s x exactly."""
    spread = 0.4

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        u = t[:, None, None]
        return z * (u - (1 - u) * spread**2) / ((1 - u) ** 2 * spread**2 + u**2)

    noise = torch.randn(4, 10, 7)
    errors = [float((heun(velocity, noise, steps) - spread * noise).abs().max()) for steps in (4, 8, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert errors[-1] < errors[0] / 20


@pytest.mark.parametrize("sampler", [euler, heun])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_flow_that_is_led_ends_where_it_is_led_to(sampler: Sampler, steps: int) -> None:
    noise, wanted = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    field = led(lambda z, t: torch.sin(z), lambda end: wanted)
    assert torch.allclose(sampler(field, noise, steps), wanted, atol=1e-5)


def test_a_flow_that_is_led_nowhere_else_is_the_plain_one() -> None:
    noise, away = torch.randn(2, 5, 3), torch.tensor([0.0, 1.0])[:, None, None]
    moved = heun(led(lambda z, t: torch.sin(z), lambda end: end + away), noise, 4)
    plain = heun(lambda z, t: torch.sin(z), noise, 4)
    assert torch.equal(moved[0], plain[0])
    assert not torch.allclose(moved[1], plain[1])


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**6))
def test_shifted_times_stay_times(t: float, dimension: int) -> None:
    shifted = float(time_shift(torch.tensor([t]), dimension)[0])
    assert 0 <= shifted <= 1 + 1e-6
    assert (shifted - t) * (dimension - 4096) >= -1e-2, "towards noise for large latents, towards data for small ones"


def test_the_path_starts_at_data_and_ends_at_noise() -> None:
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(between(data, noise, torch.zeros(2)), data)
    assert torch.equal(between(data, noise, torch.ones(2)), noise)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.0), (1.0, 5.0), (2.0, 8.0)])
def test_guidance_extrapolates(weight: float, expected: float) -> None:
    assert float(guided(torch.tensor(5.0), [torch.tensor(2.0)], [weight])) == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 4)), min_size=1, max_size=4))
def test_guidance_of_several_variables_adds_up_and_weight_one_is_nothing(pairs: list[tuple[float, float]]) -> None:
    field = torch.tensor([1.0, -2.0], dtype=torch.float64)
    without, weights = [torch.full((2,), value, dtype=torch.float64) for value, _ in pairs], [weight for _, weight in pairs]
    alone = sum(guided(field, [hidden], [weight]) - field for hidden, weight in zip(without, weights, strict=True))
    assert torch.allclose(guided(field, without, weights) - field, torch.as_tensor(alone))
    assert torch.equal(guided(field, without, [1.0] * len(weights)), field)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2)])
def test_the_order_of_convergence_is_what_the_method_promises(sampler: Sampler, order: int) -> None:
    """Data N(m, s^2) in closed form: noise x ends at m + s x. Halving the step divides the error by 2^order."""
    spread, centre = 0.5, 0.7

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        u = t[:, None, None]
        rate = (u - (1 - u) * spread**2) / ((1 - u) ** 2 * spread**2 + u**2)
        return rate * (z - (1 - u) * centre) - centre

    noise = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 8, 8)
    errors = [float((sampler(velocity, noise, steps) - centre - spread * noise).abs().max()) for steps in (64, 128, 256)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)
