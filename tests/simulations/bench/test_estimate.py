"""The estimate is held against what torch counts on the real networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from braing3n_core.data.cohort import Scan
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.models.trainable import NETWORKS
from braing3n_core.plan import DEFAULT_VARIABLES
from braing3n_core.training import draw_rows, pairs_of, row_loss, shown_of
from simulations.bench.estimate import as_json, estimate, told
from simulations.bench.floor import Machine
from tests.small import SMALL

COSTLY = [stage for stage in NETWORKS if stage != "spread"]   # which is a few sums of 16 numbers
NAMES = {name: name for name in ("encoder", "projection", "decoder", "generator", "trajectory")} | {
    "masked decoder": "masked", "FLAIR": "others.FLAIR"
}  # fmt: skip


def untrained(preset: Preset) -> Brain:
    return Brain(preset, DEFAULT_VARIABLES, ("trajectory", "FLAIR")).requires_grad_(False)


def loss_of(model: Brain, stage: str) -> Callable[[], Tensor]:
    """One volume's loss of a stage, with only that stage's networks to be trained."""
    model.requires_grad_(False)
    for network in NETWORKS[stage]:
        model.get_submodule(network).requires_grad_(True)
    x = torch.rand(1, 1, *model.preset.shape)
    with torch.no_grad():
        data = {
            "encoder": (model.cubes(x),),
            "decoder": (model.encoder(model.cubes(x)), x),
            "generator": (model.encode(x), model.codes([{}])),
            "trajectory": pairs_of(model, model.encode(x).expand(2, -1, -1), [{"age": 60.0}, {"age": 65.0}]),
            "contrast": shown_of(model, [Scan(x[0], {}, "FLAIR")]),
        }[stage]
    rows = draw_rows(stage, data, model, 1, torch.Generator().manual_seed(0))
    return lambda: row_loss(stage)(model, rows).mean()


@pytest.mark.parametrize("preset", [PRESETS["tiny"], SMALL], ids=["tiny", "unequal sides"])
def test_parameters_are_exactly_those_of_the_model(preset: Preset) -> None:
    model = untrained(preset)
    found = estimate("x", preset, DEFAULT_VARIABLES, 4)
    counted = {name: sum(p.numel() for p in model.get_submodule(own).parameters()) for name, own in NAMES.items()}
    assert found.parameters == counted
    assert found.tokens == model.tokens


@pytest.mark.parametrize("stage", COSTLY)
def test_arithmetic_and_memory_of_a_step_are_what_torch_counts(stage: str) -> None:
    model = untrained(PRESETS["tiny"])
    found, loss = estimate("tiny", model.preset, DEFAULT_VARIABLES, 4), loss_of(model, stage)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    assert found.step_flops[stage] == pytest.approx(counter.get_total_flops(), rel=0.03)
    assert found.activation_bytes[stage] == pytest.approx(kept(model, loss), rel=0.1)
    assert found.checkpointed_bytes[stage] <= found.activation_bytes[stage]


def kept(model: Brain, loss: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, weights and buffers aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    seen: dict[int, torch.UntypedStorage] = {}               # holding them keeps addresses from being used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for storage in seen.values())


def test_arithmetic_of_a_sampled_volume_is_what_torch_counts() -> None:
    model = untrained(PRESETS["tiny"])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        generate(model, [{}], 0, steps=3, guidance=1.0)
    found = estimate("tiny", model.preset, DEFAULT_VARIABLES, 3)
    assert found.volume_flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_base_fits_on_one_gpu_of_80_gb() -> None:
    found = estimate("base", PRESETS["base"], DEFAULT_VARIABLES, 12, tokens=PRESETS["base"].tokens)
    for stage, states in found.training_bytes.items():
        assert found.model_bytes + states + 16 * found.checkpointed_bytes[stage] < 64 * 2**30


def test_slabs_cost_what_their_tokens_cost() -> None:
    slabs = dataclasses.replace(PRESETS["tiny"], patch=(48, 48, 2))
    assert estimate("slabs", slabs, DEFAULT_VARIABLES, 4, tokens=24).parameters["encoder"] > 0
    assert slabs.tokens_per_axis == (1, 1, 24)


def test_what_a_person_reads_has_every_stage_and_scales_with_the_batch() -> None:
    found = estimate("tiny", PRESETS["tiny"], DEFAULT_VARIABLES, 12, tokens=142)
    one, four = told(found, 1), told(found, 4)
    costs = [{line.split()[0]: line for line in lines[-len(COSTLY):]} for lines in (one, four)]
    assert [set(each) for each in costs] == [set(COSTLY)] * 2
    assert "1.81 G" in costs[0]["generator"]
    assert "7.24 G" in costs[1]["generator"]
    assert as_json(found)["tokens"] == 142


def test_a_machine_adds_the_least_seconds_that_each_takes() -> None:
    found = estimate("tiny", PRESETS["tiny"], DEFAULT_VARIABLES, 12, tokens=142)
    slow = Machine(threads=1, flops=1e9, bytes=1e6)          # its copies decide: ten passes over the weights that are trained
    lines = {line.split()[0]: line.split() for line in told(found, 1, slow)[-len(COSTLY):]}
    assert float(lines["generator"][-1]) == pytest.approx(found.parameters["generator"] * 40 / 1e6, rel=0.01)
    assert f"{found.volume_flops / 1e9:.3g} s at least" in "\n".join(told(found, 1, slow))
    assert "at least" not in "\n".join(told(found, 1))
