"""The baseline samples the same grid, at matched size, and both do the same number of evaluations."""

from __future__ import annotations

import pytest

from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES
from simulations.bench import sampling
from simulations.bench.estimate import estimate


@pytest.mark.slow
def test_the_two_are_of_equal_size_and_take_equal_steps() -> None:
    said: list[str] = []
    ours, theirs = found = sampling.compare(steps=2, repeats=1, threads=1, say=said.append)
    assert theirs.parameters == pytest.approx(ours.parameters, rel=0.05)
    assert ours.evaluations == theirs.evaluations == 2
    assert sampling.as_json(found)["ratio"] == sampling.ratio(found) > 0
    for row in found:
        assert min(row.seconds, row.least) > 0
        assert f"{row.floors:.1f} times the floor" in "\n".join(sampling.told(found))
    size = estimate("tiny", PRESETS["tiny"], DEFAULT_VARIABLES, 1)                             # one step is one evaluation
    assert size.volume_flops < ours.work.flops < 2 * size.volume_flops, "two evaluations and one decoding"
    assert theirs.work.flops > ours.work.flops
    assert "first over second" in sampling.told(found)[-1]
    assert len(said) == 3                                    # the machine, and both turns
