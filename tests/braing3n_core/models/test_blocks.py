"""Cubes keep their place on grids that are no cube."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.models.blocks import cubes_from_volume, set_thrift, sine_positions, volume_from_cubes
from braing3n_core.models.brain import Brain
from tests.small import SMALL, small_brain


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


def gradients(model: Brain) -> dict[str, torch.Tensor]:
    model.zero_grad()
    z, t = torch.ones(2, model.tokens, SMALL.latent_width), torch.tensor([0.2, 0.7])
    keep = torch.arange(model.tokens // 2).expand(2, -1)
    cubes = torch.linspace(0, 1, 2 * model.tokens * SMALL.patch_voxels).reshape(2, model.tokens, -1)
    seen = model.masked(model.encoder(cubes, keep), keep).square().mean()
    (model.generator(z, t, model.codes([{"age": 30.0}, {}])).square().mean() + seen).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_no_gradient_and_no_name() -> None:
    model = small_brain()
    names, plain = list(model.state_dict()), gradients(model)
    set_thrift(model, checkpointing=True)
    again = gradients(model)
    assert list(model.state_dict()) == names
    assert plain.keys() == again.keys()
    assert all(torch.allclose(plain[name], again[name], rtol=1e-5, atol=1e-8) for name in plain)


def test_checkpointing_keeps_less() -> None:
    def kept() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            model.generator(torch.ones(2, model.tokens, SMALL.latent_width), torch.tensor([0.2, 0.7]), model.codes([{}, {}]))
        return sum(sizes)

    model = small_brain()
    plain = kept()
    set_thrift(model, checkpointing=True)
    assert kept() < plain / 2


def test_bfloat16_is_close_and_off_again_is_exact() -> None:
    model = small_brain()
    plain = gradients(model)
    set_thrift(model, bf16=True)
    rough = gradients(model)
    for name, exact in plain.items():
        assert rough[name].dtype == torch.float32
        assert torch.linalg.vector_norm(rough[name] - exact) <= 0.05 * torch.linalg.vector_norm(exact) + 1e-6, name
    set_thrift(model)
    assert all(torch.equal(plain[name], tensor) for name, tensor in gradients(model).items())
