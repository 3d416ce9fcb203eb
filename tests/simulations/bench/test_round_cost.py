"""A round's overhead is what is left of its wall time without the slowest site's training, for ours and for plain Flower."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import overridden
from simulations.bench import deployed
from simulations.bench.round_cost import Row, as_json, bench, measured, told
from tests.end_to_end.hospitals import processes

PLAN = TrainingPlan.load(Path(__file__).parents[3] / "simulations" / "recipes" / "smoke.toml")


def test_the_first_round_is_left_out_and_medians_are_told() -> None:
    row = measured("ours", [99.0, 63.0, 66.0, 70.0], [10.0, 60.0, 60.0, 60.0], (20.0, 0.5))
    assert (row.rounds, row.training, row.round, row.overhead) == (3, 60.0, 66.0, 6.0)
    assert row.share == pytest.approx(0.1)
    assert json.loads(as_json([row]))[0]["share"] == row.share
    assert "10.0%               3.0              12.0" in "\n".join(told([row]))


def test_a_round_that_nobody_trained_in_is_not_measured() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measured("ours", [9.0, 9.0], [8.0], (1.0, 1.0))


@pytest.mark.crash                                           # minutes: `make test-crash`
@pytest.mark.filterwarnings("ignore:'click:DeprecationWarning", "ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's
@pytest.mark.parametrize("how", [bench, deployed.bench], ids=["simulated", "deployed"])
def test_ours_and_plain_flower_train_the_same_tensors_in_one_bench(tmp_path: Path, how: Callable[..., list[Row]]) -> None:
    ours, plain = how(overridden(PLAN, patients=6), 1, 2, tmp_path, lambda line: None)
    assert (ours.rounds, plain.rounds) == (1, 1)
    for row in (ours, plain):
        assert row.training > 0
        assert row.round == pytest.approx(row.training + row.overhead)
    assert processes(str(tmp_path)) == [], "nothing is left running"
