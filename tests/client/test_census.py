"""A site's census: paid before a patient is looked at, told once, and never with anything but noisy counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.census import sizes
from braing3n_core.plan import TrainingPlan
from client.policy import Policy
from privacy.egress import CENSUS_STAGE
from privacy.ledger import Ledger
from tests.client.studies import Scans, patient, rehearsal, site, stage, study

STAGES = [stage("decoder", "group:style", share=0.4), stage("generator", "lora:1", share=0.55)]
CENSUS = {"share": 0.05, "bins": 5, "variables": ["age", "sex"]}
PLAN = study(stages=STAGES, census=CENSUS)


def events(folder: Path) -> tuple[object, ...]:
    with Ledger(folder / "north" / "ledger.jsonl", 1e-5) as ledger:
        return ledger.events


def counts(header: object) -> list[int]:
    return [int(word) for word in str(header["counts"]).split()]  # type: ignore[index]  # a header of the egress


def test_a_census_is_paid_for_and_is_nothing_but_noisy_counts(tmp_path: Path) -> None:
    here = site(tmp_path, PLAN)
    cleared = here.census()
    assert cleared.values is None
    assert set(cleared.header) == {"kind", "site", "plan", "counts", "epsilon", "ledger_head"}
    assert len(counts(cleared.header)) == sum(sizes(PLAN))
    assert events(tmp_path) == (here.charge(CENSUS_STAGE),)
    logged = json.loads((tmp_path / "north" / "audit.jsonl").read_text().splitlines()[-1])
    assert logged["charged"]["stage"] == "census"
    assert logged["header"]["counts"] == cleared.header["counts"]


def test_many_patients_are_counted_and_each_of_them_once(tmp_path: Path) -> None:
    """800 women of 60, with three scans each: the counts say so to within the noise."""
    crowd = [patient(7, scans=3)] * 800
    told = counts(site(tmp_path, PLAN, Scans(crowd)).census().header)
    error = PLAN_ERROR * 6
    assert abs(told[2] - 800) < error
    assert abs(told[6] - 800) < error
    assert all(abs(count) < error for place, count in enumerate(told) if place not in (2, 6))


PLAN_ERROR = site(Path("nowhere"), PLAN).charge(CENSUS_STAGE).noise_multiplier * 2**0.5  # type: ignore[union-attr]


def test_a_census_waits_for_its_budget(tmp_path: Path) -> None:
    assert site(tmp_path, PLAN, limit=0.1).census().header["code"] == "budget-exhausted"
    assert events(tmp_path) == ()


def test_a_plan_without_a_census_or_without_privacy_gets_none(tmp_path: Path) -> None:
    assert site(tmp_path, study()).census().header["code"] == "plan-refused"
    bare: TrainingPlan = rehearsal(stages=STAGES, census=CENSUS)
    assert site(tmp_path / "bare", bare).census().header["code"] == "plan-refused"
    assert events(tmp_path) == ()


def test_a_hospital_allows_a_census_in_so_many_words_or_there_is_none() -> None:
    assert any("takes a census" in said for said in Policy(epsilon=8.0, smallest_cohort=1).objections(PLAN, "north"))
    assert not Policy(epsilon=8.0, smallest_cohort=1, census=True).objections(PLAN, "north")
    assert not Policy(epsilon=8.0, smallest_cohort=1).objections(study(), "north")


@pytest.mark.slow
def test_the_census_takes_no_round_s_place(tmp_path: Path) -> None:
    from tests.client.studies import request

    here = site(tmp_path, PLAN)
    assert here.round(request(PLAN)).header["kind"] == "update"
    assert here.census().header["kind"] == "census"
    assert here.round(request(PLAN, "generator")).header["kind"] == "update"
    assert here.census().header["kind"] == "census", "late, and told again"


@pytest.mark.parametrize("spoil", ["gone", "changed"])
def test_counts_that_were_told_are_never_drawn_anew(tmp_path: Path, spoil: str) -> None:
    first = site(tmp_path, PLAN).census().header
    (kept,) = (tmp_path / "north" / "answers").glob("*.census")
    if spoil == "gone":
        kept.unlink()
    else:
        kept.write_text(kept.read_text().replace(str(counts(first)[0]), "123456", 1))
    answer = site(tmp_path, PLAN).census().header
    assert answer["kind"] == "refusal"
    assert answer["exit_code"] == 6
    assert len(events(tmp_path)) == 1
