"""The decoder's own leaf states what it does to each patient, whatever shares its memory."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.models.decoder import Mix


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_a_mix_are_each_patients_own_whether_maps_are_shared_or_not(shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mix, (P, K) = Mix(5), (3, 2)
    maps = torch.randn(1 if shared else P * K, 5, 2, 3, 4, generator=generator).expand(P * K, -1, -1, -1, -1)
    grad = torch.randn(P * K, 2, 3, 4, generator=generator)
    found = mix.patient_gradients(maps.unflatten(0, (P, K)), grad.unflatten(0, (P, K)))["weight"]
    for p in range(P):
        rows = slice(p * K, (p + 1) * K)
        (expected,) = torch.autograd.grad((mix(maps[rows]) * grad[rows]).sum(), [mix.weight])
        assert torch.allclose(found[p], expected, rtol=1e-4, atol=1e-5)


def test_shared_maps_are_mixed_once_to_the_same_sum() -> None:
    maps = torch.randn(1, 5, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    mix = Mix(5)
    mix.weight.data.copy_(torch.arange(5.0))
    shared, each = maps.expand(3, -1, -1, -1, -1), maps.repeat(3, 1, 1, 1, 1)
    torch.testing.assert_close(mix(shared), mix(each))
    assert mix(shared).stride(0) == 0, "one memory for all rows"
    assert mix(shared[:0]).shape == (0, 2, 3, 4)
