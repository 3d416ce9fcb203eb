"""An error carries a patient's name; a scan carries numbers that break the arithmetic. Neither may show outside."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from client.site import Site, refuse
from privacy.egress import Cleared, RefusalCode
from privacy.errors import EgressRefused, LedgerCorrupt, MechanismRefused
from tests.client.studies import PEOPLE, Scans, patient, rehearsal, request, site, stage, study

PATIENT = "sub-0042"
PLAN = study()


class Unprintable(Exception):
    """An error that fails again when it is printed."""

    def __str__(self) -> str:
        raise ValueError(PATIENT)


ERRORS = [
    ValueError(PATIENT), DataRefused(f"{PATIENT} has no scan"), KeyError(PATIENT), RuntimeError(PATIENT, {"age": 71}),
    FileNotFoundError(2, "x", f"/data/{PATIENT}"), IntegrityError(PATIENT), LedgerCorrupt(PATIENT), MechanismRefused(PATIENT),
    MemoryError(PATIENT), EgressRefused(PATIENT), Unprintable(), ExceptionGroup(PATIENT, [ValueError(PATIENT)]),
    RecursionError(PATIENT), StopIteration(PATIENT),
]  # fmt: skip


def says_nothing(answer: Cleared, folder: Path) -> None:
    assert answer.values is None
    header = dict(answer.header)
    assert header.keys() == {"kind", "site", "code", "exit_code"}
    assert RefusalCode(str(header["code"])).exit_code == header["exit_code"]
    assert PATIENT not in repr(answer)
    assert PATIENT not in (folder / "north" / "audit.jsonl").read_text()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_from_the_scans_leaves_as_a_fixed_word(tmp_path: Path, error: Exception) -> None:
    here = site(tmp_path, scans=Scans(error=error))
    says_nothing(here.ready(), tmp_path)
    says_nothing(here.round(request(PLAN)), tmp_path)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_from_the_model_leaves_as_a_fixed_word(tmp_path: Path, error: Exception) -> None:
    def broken(plan: TrainingPlan) -> Brain:
        raise error

    says_nothing(site(tmp_path, model_source=broken).round(request(PLAN)), tmp_path)


class Talkative:
    """A cohort that fails when it is first trained on, after the round was paid for."""

    excluded = ()

    @property
    def training(self) -> None:
        raise ValueError(f"{PATIENT} is 71")


def test_an_error_in_the_middle_of_training_leaves_as_a_fixed_word(tmp_path: Path) -> None:
    scans = Scans()
    scans.cohort = Talkative()  # type: ignore[assignment]  # what it is not is the test
    says_nothing(site(tmp_path, scans=scans).round(request(PLAN)), tmp_path)
    assert f"{PATIENT} is 71" in (tmp_path / "north" / "site.log").read_text(), "the operator must be able to find it"


def test_a_site_that_cannot_even_start_says_a_fixed_word(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused) as caught:
        Site(PATIENT, PLAN, tmp_path, tmp_path)
    says_nothing(refuse("north", tmp_path / "north", caught.value), tmp_path)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_scan_of_nan_harms_nobody(tmp_path: Path, poison: float) -> None:
    steps = {"sample_rate": 1.0, "local_steps": 1}
    plan = rehearsal(stages=[stage("decoder", "group:style", **steps), stage("generator", "lora:1", **steps)])
    broken = patient(42, fill=poison)
    for name in ("decoder", "generator"):
        without = site(tmp_path / f"{name}-without", plan).round(request(plan, name))
        alongside = site(tmp_path / f"{name}-with", plan, Scans((*PEOPLE, broken))).round(request(plan, name))
        assert without.values is not None
        assert alongside.values is not None
        # A pass with a broken patient is taken again by the loop engine, which adds up in another order.
        assert np.allclose(alongside.values, without.values, rtol=1e-4, atol=1e-7)
        assert np.abs(without.values).max() > 0


def test_a_hospital_of_broken_scans_sends_noise_like_any_other(tmp_path: Path) -> None:
    everyone = [patient(number, fill=math.nan) for number in range(3)]
    answer = site(tmp_path, scans=Scans(everyone)).round(request(PLAN))
    assert answer.values is not None
    assert np.isfinite(answer.values).all()
    assert np.abs(answer.values).max() > 0
