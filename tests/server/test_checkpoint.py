"""A crash at any instant costs at most the round that was open, and never mixes two runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import PlanRefused
from server import checkpoint
from server.coordinator import State

PLAN = "a" * 64


def state(stage: int, rounds: int) -> State:
    return State(stage, rounds, np.arange(4, dtype=np.float32) + rounds, {"north": 0.5 * rounds, "east": math.inf})


def test_the_newest_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    for stage, rounds in [(0, 1), (0, 2), (0, 10), (1, 0), (1, 1)]:
        checkpoint.write(tmp_path, PLAN, state(stage, rounds))
        found = checkpoint.newest(tmp_path, PLAN)
        assert found is not None
        assert (found.stage, found.rounds, found.spent) == (stage, rounds, state(stage, rounds).spent)
        assert np.array_equal(found.values, state(stage, rounds).values)
    assert len(list(tmp_path.iterdir())) == checkpoint.KEPT


def test_no_folder_and_no_checkpoint_mean_a_fresh_run(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent", PLAN) is None
    assert checkpoint.newest(tmp_path, PLAN) is None


@pytest.mark.parametrize("kept", [0, 7, 40, 200, -1])
def test_a_torn_file_is_passed_over(tmp_path: Path, kept: int) -> None:
    checkpoint.write(tmp_path, PLAN, state(0, 1))
    torn = checkpoint.write(tmp_path, PLAN, state(0, 2))
    torn.write_bytes(torn.read_bytes()[:kept])
    found = checkpoint.newest(tmp_path, PLAN)
    assert found is not None
    assert found.rounds == 1


def test_a_flipped_bit_is_passed_over(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, PLAN, state(0, 1))
    path = checkpoint.write(tmp_path, PLAN, state(0, 2))
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))
    found = checkpoint.newest(tmp_path, PLAN)
    assert found is not None
    assert found.rounds == 1


def test_another_plan_s_run_is_refused_and_kept(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, PLAN, state(0, 1))
    with pytest.raises(PlanRefused, match="another plan"):
        checkpoint.newest(tmp_path, "b" * 64)
    assert path.exists()
