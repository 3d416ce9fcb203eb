"""Tensors come back as they were, and what is not them is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.errors import IntegrityError, ReplyRefused
from braing3n_core.state import flatten, load, save, unflatten


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text("abc.", min_size=1), st.lists(st.integers(0, 3), max_size=3), max_size=4))
def test_flat_and_back(shapes: dict[str, list[int]]) -> None:
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    back = unflatten(flatten(tensors), tensors)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_order_of_a_dictionary_is_not_the_order_on_the_wire() -> None:
    one, two = torch.ones(2), torch.zeros(3)
    assert np.array_equal(flatten({"a": one, "b": two}), flatten({"b": two, "a": one}))


@pytest.mark.parametrize("values", [np.zeros(4), np.zeros(6), np.zeros((5, 1)), np.full(5, math.nan), np.full(5, math.inf)])
def test_another_models_array_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ReplyRefused):
        unflatten(values, {"a": torch.zeros(2), "b": torch.zeros(3)})


def test_a_file_is_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save(path, {"a": torch.arange(6).reshape(2, 3).T}, {"step": "3"})
    tensors, metadata = load(path)
    assert torch.equal(tensors["a"], torch.arange(6).reshape(2, 3).T)
    assert metadata == {"step": "3"}
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IntegrityError, match="restore"):
        load(path)
    with pytest.raises(IntegrityError):
        load(tmp_path / "none.safetensors")
