"""A server asks for the census again and again: the mean of many noisy counts would be the exact ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from privacy.egress import CENSUS_STAGE, Census, Egress, purpose_of
from privacy.errors import EgressRefused, MechanismRefused
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from tests.client.studies import site, stage, study

STAGES = [stage("decoder", "group:style", share=0.4), stage("generator", "lora:1", share=0.55)]
PLAN = study(stages=STAGES, census={"share": 0.05, "bins": 5, "variables": ["age", "sex"]})
DIGEST, SIZE = PLAN.digest, 9


def charged(folder: Path) -> int:
    with Ledger(folder / "north" / "ledger.jsonl", 1e-5) as ledger:
        return len(ledger.events)


def test_asking_many_times_gives_one_answer_at_one_price(tmp_path: Path) -> None:
    answers = {str(site(tmp_path, PLAN).census().header["counts"]) for _ in range(5)}
    assert len(answers) == 1
    assert charged(tmp_path) == 1


@pytest.mark.slow
def test_a_plan_that_differs_by_one_word_pays_again_and_soon_gets_nothing(tmp_path: Path) -> None:
    """Else a server could sign the same plan under many names and average."""
    seeds, kinds = range(60), []
    for seed in seeds:
        here = site(tmp_path, study(stages=STAGES, seed=seed, census={"share": 0.05, "bins": 5, "variables": ["age", "sex"]}))
        kinds.append(here.census().header["kind"])
    told = kinds.count("census")
    assert 1 <= told < len(seeds)
    assert kinds == ["census"] * told + ["refusal"] * (len(seeds) - told), "refused from some time on, for ever"
    with Ledger(tmp_path / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert ledger.epsilon <= PLAN.privacy.epsilon


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", 1e-5)


EVENT = SampledGaussian(CENSUS_STAGE, 8.0, 1.0, 1)


def test_one_charge_lets_one_set_of_counts_out(ledger: Ledger, tmp_path: Path) -> None:
    egress = Egress(ledger, tmp_path / "audit.jsonl", "north")
    paid = ledger.reserve(EVENT, purpose_of(DIGEST, CENSUS_STAGE, 1), 8.0)
    first = Census("north", DIGEST, paid, tuple(range(SIZE)))
    assert egress.send(first, SIZE).header["counts"] == "0 1 2 3 4 5 6 7 8"
    assert egress.send(first, SIZE).header["counts"] == "0 1 2 3 4 5 6 7 8"
    with pytest.raises(MechanismRefused, match="already released another value"):
        egress.send(Census("north", DIGEST, paid, (9, *range(1, SIZE))), SIZE)


@pytest.mark.parametrize(
    "counts", [tuple(range(SIZE - 1)), tuple(range(SIZE + 1)), (0.5,) * SIZE, (True,) * SIZE, ("sub-01",) * SIZE,
               (10**12,) * SIZE, [1] * SIZE, np.arange(SIZE)],
)  # fmt: skip
def test_nothing_but_whole_counts_of_the_plan_s_bins_leaves(ledger: Ledger, tmp_path: Path, counts: object) -> None:
    egress = Egress(ledger, tmp_path / "audit.jsonl", "north")
    paid = ledger.reserve(EVENT, purpose_of(DIGEST, CENSUS_STAGE, 1), 8.0)
    with pytest.raises(EgressRefused):
        egress.send(Census("north", DIGEST, paid, counts), SIZE)  # type: ignore[arg-type]  # wrong types are the test
    assert not (tmp_path / "audit.jsonl").exists()


def test_a_round_s_charge_pays_for_no_census_nor_the_reverse(ledger: Ledger, tmp_path: Path) -> None:
    egress = Egress(ledger, tmp_path / "audit.jsonl", "north")
    round_ = ledger.reserve(SampledGaussian("decoder", 8.0, 0.5, 2), purpose_of(DIGEST, "decoder", 1), 8.0)
    other = ledger.reserve(EVENT, purpose_of(hashlib.sha256(b"other").hexdigest(), CENSUS_STAGE, 1), 8.0)
    for paid in (round_, other):
        with pytest.raises(EgressRefused, match="for something else"):
            egress.send(Census("north", DIGEST, paid, tuple(range(SIZE))), SIZE)
