"""A site scales its update, or says it has more patients, so that the model goes where it alone wants."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n_core.errors import ReplyRefused
from server.aggregate import LARGEST, bounded
from server.coordinator import Coordinator
from tests.server.studies import begun, header, reply

BOUND = 1.0


def run_by(**aggregate: object) -> Coordinator:
    return begun(federation={"quorum": 2, "deadline_s": 60.0, "aggregate": aggregate})


def closed(run: Coordinator, south: float) -> np.ndarray:
    """The model after a round of two honest sites and south, which declares 60 of the 100 patients."""
    for name, value in zip(("north", "east", "south"), (0.1, 0.2, south), strict=True):
        reply(run, name, value)
    run.close_round()
    return run.state.values


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_it_is_cut_to_the_bound_and_keeps_its_direction(scale: float) -> None:
    update = np.array([3.0, -4.0], np.float32) * np.float32(scale)
    cut = bounded(update, BOUND)
    assert np.linalg.norm(cut.astype(np.float64)) <= BOUND + 1e-6
    assert cut[0] * update[1] == pytest.approx(cut[1] * update[0])


@pytest.mark.parametrize("scale", [10.0, 9e5, -9e5])
def test_with_a_norm_bound_it_moves_the_model_by_its_declared_share_of_the_bound_and_no_more(scale: float) -> None:
    alone = closed(run_by(rule="mean", norm_bound=BOUND), 0.0)
    moved = closed(run_by(rule="mean", norm_bound=BOUND), scale)
    assert 0 < np.linalg.norm(moved - alone) <= 0.6 * BOUND + 1e-6


@pytest.mark.parametrize("scale", [10.0, 9e5, -9e5])
@pytest.mark.parametrize("rule", [{"rule": "median"}, {"rule": "trimmed-mean", "trim": 1}])
def test_by_rank_one_scaled_update_of_three_leaves_the_model_among_the_honest(rule: dict[str, object], scale: float) -> None:
    run = begun(federation={"quorum": 3, "deadline_s": 60.0, "aggregate": rule})
    model = closed(run, scale)
    assert (model >= 0.1 - 1e-6).all()
    assert (model <= 0.2 + 1e-6).all()


@pytest.mark.parametrize("scale", [LARGEST * 1.01, -LARGEST * 1.01, 3e38])
def test_numbers_that_no_training_makes_are_refused_by_name_whatever_the_rule(scale: float) -> None:
    run = begun()
    with pytest.raises(ReplyRefused, match=r"^south sent numbers beyond"):
        run.accept("south", header(run, "south"), np.full(3, scale, np.float32))
    reply(run, "north", 1.0)
    reply(run, "east", 5.0)
    assert list(run.close_round().refused) == ["south"]
    assert run.state.values == pytest.approx([4.0] * 3)


def test_the_plan_is_the_only_source_of_weights() -> None:
    run = begun()
    run.accept("north", header(run, "north", patients=10**9, weight=10**9), np.ones(3, np.float32))
    reply(run, "south", 8.0)
    run.close_round()
    assert run.state.values == pytest.approx([7.0] * 3)
