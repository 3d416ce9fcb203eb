"""What one hospital does with a request, and what it costs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.cohort import Scan
from braing3n_core.errors import DataRefused, PlanRefused, UsageError
from braing3n_core.protocol import Request, begin_stage, initial_values
from client.refusal import note
from privacy.accountant import calibrate
from privacy.egress import Cleared, purpose_of
from privacy.events import NonPrivate, SampledGaussian
from privacy.ledger import Ledger
from tests.client.studies import PEOPLE, Scans, brain, patient, rehearsal, request, site, study
from tests.client.studies import stage as staged
from tests.small import SMALL, small_brain

PLAN = study()


def ledger(folder: Path) -> Ledger:
    return Ledger(folder / "north" / "ledger.jsonl", PLAN.privacy.delta)


def refused(cleared: Cleared) -> tuple[object, object]:
    assert cleared.header["kind"] == "refusal"
    assert cleared.values is None
    return cleared.header["code"], cleared.header["exit_code"]


def values_of(cleared: Cleared) -> np.ndarray:
    assert cleared.values is not None, dict(cleared.header)
    return cleared.values


def test_ready_says_constants_and_costs_nothing(tmp_path: Path) -> None:
    assert dict(site(tmp_path).ready().header) == {"kind": "ready", "site": "north", "plan": PLAN.digest}
    with ledger(tmp_path) as book:
        assert book.events == ()


def test_a_round_is_paid_for_and_answers_what_was_asked(tmp_path: Path) -> None:
    here, asked = site(tmp_path), request(PLAN)
    cleared = here.round(asked)
    size = sum(tensor.numel() for tensor in begin_stage(brain(PLAN), PLAN, "decoder").values())
    assert values_of(cleared).shape == (size,)
    header = cleared.header
    assert (header["site"], header["plan"], header["stage"], header["round"]) == ("north", PLAN.digest, "decoder", 1)
    assert header["start"] == asked.digest
    with ledger(tmp_path) as book:
        assert book.events == (here.event(PLAN.stage("decoder")),)
        assert header["epsilon"] == book.epsilon


def test_the_whole_plan_spends_its_epsilon_and_no_more(tmp_path: Path) -> None:
    here = site(tmp_path)
    for stage in PLAN.stages:
        for number in range(1, stage.rounds + 1):
            last = here.round(request(PLAN, stage.name, number))
            assert last.header["kind"] == "update"
    assert 0.99 * PLAN.privacy.epsilon <= float(last.header["epsilon"]) <= PLAN.privacy.epsilon


def test_noise_is_calibrated_at_the_site_over_all_stages(tmp_path: Path) -> None:
    rows = [(stage.sample_rate, stage.rounds * stage.local_steps, stage.share) for stage in PLAN.stages]
    expected = calibrate(rows, PLAN.privacy.epsilon, PLAN.privacy.delta)
    events = [site(tmp_path).event(stage) for stage in PLAN.stages]
    assert events == [
        SampledGaussian(stage.name, sigma, stage.sample_rate, stage.local_steps)
        for stage, sigma in zip(PLAN.stages, expected, strict=True)
    ]


def test_a_round_cut_short_by_a_crash_is_not_charged_twice(tmp_path: Path) -> None:
    here = site(tmp_path)
    event, purpose = here.event(PLAN.stage("decoder")), purpose_of(PLAN.digest, "decoder", 1)
    with ledger(tmp_path) as book:                           # as a kill between reserving and training leaves it
        book.reserve(event, purpose, 8.0)
    assert here.round(request(PLAN)).header["kind"] == "update"
    with ledger(tmp_path) as book:
        assert book.events == (event,)


def test_a_round_that_failed_in_training_stays_charged_and_asking_again_costs_again(tmp_path: Path) -> None:
    wrong = patient(8)
    wrong.scans[0].conditions["sex"] = "sub-0008"            # not a level of the plan, so its codes cannot be made
    generator_only = study(stages=[PLAN.stage("generator").model_dump() | {"share": 1.0, "rounds": 3}])
    here = site(tmp_path, generator_only, Scans([patient(7), wrong]))
    for charges in (1, 2):
        assert refused(here.round(request(generator_only, "generator"))) == ("internal", 1)
        with ledger(tmp_path) as book:
            assert len(book.events) == charges
    healthy = site(tmp_path, generator_only)
    assert healthy.round(request(generator_only, "generator")).header["kind"] == "update"
    with ledger(tmp_path) as book:
        assert len(book.events) == 3
    assert refused(healthy.round(request(generator_only, "generator", 2))) == ("budget-exhausted", 5)


def test_a_round_passed_by_is_stale_but_one_ahead_is_not(tmp_path: Path) -> None:
    here = site(tmp_path)
    assert here.round(request(PLAN, "decoder", 2)).header["kind"] == "update"
    assert refused(here.round(request(PLAN, "decoder", 1))) == ("stale-request", 1)
    assert here.round(request(PLAN, "generator", 1)).header["kind"] == "update"
    with ledger(tmp_path) as book:
        assert len(book.events) == 2


def test_the_sites_own_limit_stops_it_before_the_plan_does(tmp_path: Path) -> None:
    scans = Scans()
    here = site(tmp_path, scans=scans, limit=0.5)
    assert refused(here.round(request(PLAN))) == ("budget-exhausted", 5)
    with ledger(tmp_path) as book:
        assert book.events == ()
    assert site(tmp_path / "rich", limit=100.0).limit == PLAN.privacy.epsilon


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(UsageError, match="positive number"):
        site(tmp_path, limit=limit)


def test_a_site_the_plan_does_not_know_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused, match="no site 'north'"):
        site(tmp_path, study(sites=[{"name": "south", "patients": 3}]))


def test_unreadable_data_is_said_before_any_budget_is_spent(tmp_path: Path) -> None:
    here = site(tmp_path, scans=Scans(error=DataRefused("no scans in /data/sub-0042")))
    assert refused(here.ready()) == ("data-refused", 3)
    assert refused(here.round(request(PLAN))) == ("data-refused", 3)
    with ledger(tmp_path) as book:
        assert book.events == ()


def test_a_busy_ledger_is_said_and_left_alone(tmp_path: Path) -> None:
    here = site(tmp_path)
    with ledger(tmp_path):
        assert refused(here.ready()) == ("ledger-busy", 6)
        assert refused(here.round(request(PLAN))) == ("ledger-busy", 6)
    assert here.ready().header["kind"] == "ready"


def test_a_broken_ledger_is_said(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.round(request(PLAN))
    path = tmp_path / "north" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"purpose"', b'"purpos_"', 1))
    assert refused(here.round(request(PLAN, "decoder", 2))) == ("integrity", 6)


def test_interrupting_goes_through_and_frees_the_ledger(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        site(tmp_path, scans=Scans(error=KeyboardInterrupt())).round(request(PLAN))
    ledger(tmp_path).close()


def test_held_out_patients_are_never_trained_on(tmp_path: Path) -> None:
    plan = rehearsal()
    stranger = patient(50, held_out=True, fill=1.3)
    answers = [
        site(tmp_path / name, plan, Scans(people)).round(request(plan))
        for name, people in {"without": PEOPLE, "with": (*PEOPLE, stranger)}.items()
    ]
    assert np.array_equal(values_of(answers[0]), values_of(answers[1]))
    trained = site(tmp_path / "trained", plan, Scans((*PEOPLE, patient(50, fill=1.3)))).round(request(plan))
    assert not np.array_equal(values_of(answers[0]), values_of(trained)), "the comparison would see a difference"


def test_a_rehearsal_without_privacy_repeats_and_says_what_it_cost(tmp_path: Path) -> None:
    plan = rehearsal()
    one, two = (site(tmp_path / name, plan).round(request(plan)) for name in "ab")
    assert np.array_equal(values_of(one), values_of(two))
    assert one.header["epsilon"] == math.inf
    with ledger(tmp_path / "a") as book:
        assert book.events == (NonPrivate("decoder"),)


def test_two_private_answers_from_the_same_start_differ(tmp_path: Path) -> None:
    one, two = (site(tmp_path / name).round(request(PLAN)) for name in "ab")
    assert not np.array_equal(values_of(one), values_of(two))


def test_what_earlier_stages_learnt_reaches_the_later_one(tmp_path: Path) -> None:
    """The generator trains on latents of the encoder that was sent, also when that comes to a site that was restarted."""
    stages = [{**stage.model_dump(), "rounds": 2} for stage in PLAN.stages]
    stages[0] |= {"name": "encoder", "trainable": "all"}
    plan = rehearsal(stages=stages)
    here = site(tmp_path / "a", plan)
    moved = request(plan, "generator", 2, shift=0.01)
    original = values_of(here.round(request(plan, "generator", 1)))
    warm = values_of(here.round(moved))
    cold = values_of(site(tmp_path / "b", plan).round(moved))
    assert np.array_equal(warm, cold)
    assert not np.array_equal(original, warm)


def test_scans_are_read_once(tmp_path: Path) -> None:
    scans = Scans()
    here = site(tmp_path, scans=scans)
    here.ready()
    here.round(request(PLAN, number=1))
    here.round(request(PLAN, number=2))
    assert scans.read == 1


def test_the_operator_reads_everything_and_nobody_else_does(tmp_path: Path) -> None:
    site(tmp_path).ready()
    site(tmp_path, scans=Scans(error=DataRefused("sub-0042 has no scan"))).ready()
    log = tmp_path / "north" / "site.log"
    assert "left out sub-0099_T1w.nii.gz: is all zero" in log.read_text()
    assert "sub-0042 has no scan" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert (tmp_path / "north").stat().st_mode & 0o077 == 0
    audit = [json.loads(line) for line in (tmp_path / "north" / "audit.jsonl").read_text().splitlines()]
    assert [line["header"]["kind"] for line in audit] == ["ready", "refusal"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    note(tmp_path / "file" / "folder", "words")


@pytest.mark.parametrize("have_one", [True, False])
def test_scans_of_another_modality_reach_the_stage_that_learns_it(tmp_path: Path, have_one: bool) -> None:
    cell = {"count": 1, "modalities": ["T1w", "FLAIR"], "conditions": {}}
    plan = rehearsal(
        stages=[staged("contrast", "group:style", share=1.0, sample_rate=1.0)], release={"seed": 1, "cells": [cell]}
    )
    flair = (Scan(torch.rand(1, *SMALL.shape, generator=torch.Generator().manual_seed(9)), {}, "FLAIR"),) if have_one else ()
    people = [replace(one, others=flair) for one in PEOPLE]
    here = site(tmp_path, plan, Scans(people), model_source=lambda _: small_brain("FLAIR"))
    start = np.concatenate(initial_values(small_brain("FLAIR"), plan)).astype(np.float32)
    moved = values_of(here.round(Request(plan.digest, "contrast", 1, start)))
    assert bool(np.abs(moved).max() > 0) == have_one, "an update of patients without a FLAIR, and without noise, is none"
