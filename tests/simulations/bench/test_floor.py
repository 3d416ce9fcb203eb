"""The floor is a floor: arithmetic is counted whole, attention too, and no product or copy is sooner than it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from simulations.bench.floor import Machine, Work, flops, training_bytes

MACHINE = Machine(threads=1, flops=100.0, bytes=10.0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_multiplication_and_an_addition_are_two(rows: int, inner: int, columns: int) -> None:
    left, right = torch.zeros(rows, inner), torch.zeros(inner, columns)
    assert flops(lambda: left @ right) == 2 * rows * inner * columns


@pytest.mark.parametrize("backward", [False, True])
def test_attention_is_counted_on_a_processor(backward: bool) -> None:
    tokens, width = 12, 8
    q, k, v = (torch.rand(1, 2, tokens, width, requires_grad=backward) for _ in range(3))

    def step() -> None:
        found: Tensor = scaled_dot_product_attention(q, k, v)
        if backward:
            found.sum().backward()

    assert flops(step) == (3 if backward else 1) * 2 * 2 * (2 * tokens * tokens * width)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 100))
def test_the_longer_of_the_two_counts_and_grows_with_the_work(arithmetic: float, moved: float, times: float) -> None:
    work = Work(arithmetic, moved)
    assert MACHINE.least(work) == max(arithmetic / 100, moved / 10)
    assert MACHINE.least(times * work) == pytest.approx(times * MACHINE.least(work))


def test_a_step_of_adamw_moves_every_weight_ten_times() -> None:
    assert training_bytes(3) == 3 * 10 * 4


def test_a_machine_is_measured_by_the_clock_it_is_given_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    found = Machine.measured(1, ticking(0.5))
    assert (found.threads, torch.get_num_threads()) == (1, before)
    assert found.flops == pytest.approx(2 * 1024**3 / 0.5)
    assert found.bytes == pytest.approx(2 * 4 * 2**26 / 0.5)
    assert "1 thread(s)" in found.told()


def ticking(step: float) -> Callable[[], float]:
    now = iter(step * i for i in range(1_000))
    return lambda: next(now)
