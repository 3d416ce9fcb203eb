"""A secure sum that was paid and lost is told with what stood in for it, and never left out of what a release states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.charges import charges
from braing3n_core.errors import IntegrityError
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from privacy.accountant import epsilon_alone
from server.finish import _stated
from server.lost_sums import LostSum, add, in_words, lost_sums, spare_spent
from tests.summed import summed

PLAN = summed()


def spared(spare: int) -> TrainingPlan:
    rests_on = PLAN.privacy.secure_sum
    assert rests_on is not None
    return PLAN.but(privacy=PLAN.privacy.model_copy(update={"secure_sum": rests_on.model_copy(update={"spare": spare})}))


def lost(number: int, attempt: int = 1, *paid: str) -> LostSum:
    return LostSum(stage="decoder", round=number, attempt=attempt, paid=paid or ("north", "south"))


def test_a_lost_sum_is_written_once_and_read_back(tmp_path: Path) -> None:
    assert lost_sums(tmp_path) == ()
    for one in (lost(1), lost(2), lost(2), lost(2, 2)):
        add(tmp_path, one)
    assert lost_sums(tmp_path) == (lost(1), lost(2), lost(2, 2))


@pytest.mark.parametrize("line", [b"{", b'{"stage": "decoder"}', b"[]"])
def test_a_damaged_file_is_no_run_without_losses(tmp_path: Path, line: bytes) -> None:
    add(tmp_path, lost(1))
    with (tmp_path / "lost-sums.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(IntegrityError, match="restore the run's folder"):
        lost_sums(tmp_path)


@pytest.mark.parametrize(
    ("spare", "known", "told"),
    [
        (2, [lost(2)], "1 secure sum was paid and lost in decoder, round 2; 1 of 2 spare rounds spent in their place"),
        (2, [lost(2), lost(1), lost(2, 2)],
         "3 secure sums were paid and lost in decoder, rounds 1, 2; 2 of 2 spare rounds spent in their place"),
        (0, [lost(1)], "1 secure sum was paid and lost in decoder, round 1; 0 of 0 spare rounds spent in their place"),
    ],
)  # fmt: skip
def test_what_was_lost_is_told_with_what_stood_in_for_it(spare: int, known: list[LostSum], told: str) -> None:
    assert list(in_words(spared(spare), known)) == [told]
    assert sum(spare_spent(spared(spare), known).values()) <= spare
    assert list(in_words(spared(spare), [])) == []


@pytest.mark.slow                                            # the whole prior
def test_a_release_s_fallback_counts_the_sums_that_nobody_could_open() -> None:
    plan = spared(1)
    rounds = [json.loads(json.dumps({"stage": "decoder", "round": number, "replied": ["north", "east"]})) for number in (1, 2)]
    (cost,) = charges(plan, [len(values) for values in initial_values(load_prior(plan), plan)]).values()
    paid, unpaid = (_stated(plan, site, 1.0, rounds, [lost(1, 1, "north")]).events for site in ("north", "east"))
    assert (paid, unpaid) == ((cost,) * 3, (cost,) * 2)
    assert epsilon_alone(paid, 1e-5) > epsilon_alone(unpaid, 1e-5)
