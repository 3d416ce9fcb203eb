"""Law: every number of a release has its own draw, whatever tensors it comes in, and the sum itself is left as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privacy.errors import MechanismRefused
from privacy.mechanism import Bounded, add_noise
from privacy.randomness import ReplayableNoise, SecretNoise

SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=6)


class Counted(ReplayableNoise):
    """Draws 1, 2, 3 and so on: a draw that is used twice or left out shows."""

    def __init__(self) -> None:
        super().__init__(0)
        self.drawn = 0

    def normal(self, count: int) -> Tensor:
        first, self.drawn = self.drawn + 1, self.drawn + count
        return torch.arange(first, first + count, dtype=torch.float64)


def sums(shapes: list[list[int]]) -> dict[str, Tensor]:
    return {f"tensor {place}": torch.full(shape, -0.5, dtype=torch.float64) for place, shape in enumerate(shapes)}


@given(SHAPES)
def test_every_number_has_one_draw_of_its_own(shapes: list[list[int]]) -> None:
    noise, total = Counted(), sums(shapes)
    noisy = add_noise(Bounded(total, 2.0), 3.0, noise)
    flat = torch.cat([torch.zeros(0, dtype=torch.float64), *(noisy[name].flatten() for name in total)])
    assert torch.equal(flat, 6.0 * torch.arange(1, 1 + len(flat), dtype=torch.float64) - 0.5)
    assert noise.drawn == len(flat) == sum(tensor.numel() for tensor in total.values())
    assert {name: tensor.shape for name, tensor in noisy.items()} == {name: tensor.shape for name, tensor in total.items()}
    assert all(bool((tensor == -0.5).all()) for tensor in total.values())


def test_a_sum_that_does_not_lie_in_order_gets_noise_in_its_own_order() -> None:
    across = torch.zeros(3, 2, dtype=torch.float64).T
    assert torch.equal(add_noise(Bounded({"w": across}, 1.0), 1.0, Counted())["w"], torch.arange(1.0, 7.0).view(2, 3).double())


def test_noise_is_added_in_float64_and_rounded_once() -> None:
    """1 + 2^-24 + 2^-50 lies above the middle between two float32 numbers; noise rounded first would lie in it, and fall."""
    found = add_noise(Bounded({"w": torch.ones(1)}, 1.0), 2.0**-24 * (1 + 2.0**-26), Counted())["w"]
    assert found.dtype == torch.float32
    assert float(found) == 1 + 2.0**-23


def test_a_sum_keeps_its_type() -> None:
    sums_of = {"half": torch.ones(3, dtype=torch.bfloat16), "single": torch.ones(2)}
    found = add_noise(Bounded(sums_of, 1.0), 1.0, Counted())
    assert found["half"].tolist() == [2, 3, 4]
    assert found["single"].tolist() == [5, 6]
    assert {name: tensor.dtype for name, tensor in found.items()} == {"half": torch.bfloat16, "single": torch.float32}


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_multiplier_that_is_none_is_refused(multiplier: float) -> None:
    with pytest.raises(MechanismRefused, match="must be a finite positive number"):
        add_noise(Bounded(sums([[2]]), 1.0), multiplier, SecretNoise())
