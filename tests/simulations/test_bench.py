"""The benchmark measures what it says: side by side, every method or why not, in the shape that programs read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES
from privacy.dp_sgd import clipped_sum
from simulations.bench import dp
from simulations.bench.estimate import estimate
from simulations.bench.subjects import STAGES, subject

BIN = Path(sys.executable).parent / "braing3n-sim"


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_timed_is_a_whole_network_with_all_its_tokens(stage: str) -> None:
    chosen = subject(stage, 1, 2)
    assert chosen.model.tokens == 216
    assert all(len(column) == 2 for column in chosen.patients[0])
    found = clipped_sum(chosen.model, chosen.patients, chosen.loss, 1.0, "fast")
    silent = [name for name, tensor in found.total.tensors.items() if tensor.abs().max() == 0]
    # Embeddings of levels that nobody has, and of codes that were not hidden, are the only ones a row may not reach.
    assert all("conditions" in name for name in silent), silent


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def step() -> None:
        first = torch.zeros(1_000_000)
        second = first + 1
        del first
        _ = second * 2

    step()
    assert 8e6 <= dp.peak_bytes(step) < 8.1e6


def test_medians_are_of_ratios_of_the_same_turn() -> None:
    assert dp._median_ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


def test_limits_are_those_that_were_promised() -> None:
    assert (dp.limit("generator", 1), dp.limit("decoder", 4), dp.limit("encoder", 4)) == (1.15, 1.10, 1.25)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UsageError, match="no model 'brain' to measure"):
        dp.stages(["brain"])
    with pytest.raises(UsageError, match="no method 'vmap' to measure"):
        dp.methods(["vmap"])


def test_what_was_not_asked_for_is_not_measured_and_says_so() -> None:
    assert dp.methods([]) == list(dp.METHODS)
    assert dp.methods(["loop"]) == ["ours", "loop"]
    (row,) = dp.bench(["decoder"], [1], 1, 1, 1, lambda _: None, names=dp.methods(["ours"]))
    assert isinstance(row["ours"], float)
    assert row["loop"] == row["ghost"] == "not asked for"
    assert row["limit"] == 1.15
    assert "refused" not in "\n".join(dp.told([row]))


@pytest.mark.slow
def test_the_table_for_programs() -> None:
    words = ["bench", "dp", "--model", "encoder", "--views", "1", "--views", "2", "--patients", "2", "--rounds", "1", "--json"]
    done = subprocess.run([BIN, *words], capture_output=True, text=True, timeout=850, check=True)
    one, two = json.loads(done.stdout)["rows"]
    assert (one["model"], one["views"], one["patients"], one["limit"]) == ("MAE, 54 of 216 tokens visible", 1, 2, 1.25)
    assert all(one[name] > 0 for name in dp.METHODS if name != "ghost")
    assert (two["views"], two["patients"]) == (2, 1)
    assert "clips rows" in two["opacus_hooks"]
    assert two["ours"] > 0
    assert one["memory"]["ours"] > 0
    for row in (one, two):
        assert min(row["floor"]["plain"], row["floor"]["ours"], row["floor"]["seconds"]) > 0
    rows_in = one["patients"] * one["views"]
    counted = estimate("", PRESETS["tiny"], DEFAULT_VARIABLES, 1, tokens=216).step_flops["encoder"]
    assert one["floor"]["flops"] == pytest.approx(rows_in * counted, rel=0.03)
    assert two["floor"]["flops"] == pytest.approx(one["floor"]["flops"], rel=0.03), "one patient of two views, two of one"
