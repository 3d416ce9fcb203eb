"""Cubes keep their place on grids that are no cube."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.models.blocks import cubes_from_volume, sine_positions, volume_from_cubes


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 3))
def test_no_voxel_is_lost_or_moved(cubes: tuple[int, int, int], patch: tuple[int, int, int], rows: int) -> None:
    shape = tuple(n * p for n, p in zip(cubes, patch, strict=True))
    x = torch.arange(rows * shape[0] * shape[1] * shape[2]).reshape(rows, 1, *shape)
    assert torch.equal(volume_from_cubes(cubes_from_volume(x, patch), shape, patch), x)


def test_a_cube_is_a_corner_of_the_volume() -> None:
    x = torch.arange(16 * 24 * 8).reshape(1, 1, 16, 24, 8)
    first, second = cubes_from_volume(x, (4, 6, 2))[0, :2]
    assert torch.equal(first, x[0, 0, :4, :6, :2].flatten())
    assert torch.equal(second, x[0, 0, :4, :6, 2:4].flatten())


def test_no_two_places_share_a_code() -> None:
    codes = sine_positions((3, 5, 4), 26)
    assert codes.shape == (60, 26)
    assert torch.pdist(codes).min() > 1e-3
