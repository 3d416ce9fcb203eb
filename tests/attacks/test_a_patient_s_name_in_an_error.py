"""An error carries a patient's name or the name of a file of theirs. Outside, one of a few fixed words is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from client.site import Site, refuse
from privacy.egress import Cleared, RefusalCode
from privacy.errors import EgressRefused, LedgerCorrupt, MechanismRefused
from tests.client.studies import Scans, request, site, study
from tests.gate_messages import answer, asked, gated

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


def test_the_reply_of_a_node_holds_the_fixed_word_and_the_hospital_s_own_log_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"patient {PATIENT} file /data/{PATIENT}_T1w.nii.gz missing")

    one = gated(tmp_path, monkeypatch)
    monkeypatch.setattr("client.site.Site.round", broken)
    assert answer(one, asked(one)) == {"kind": "refusal", "site": "north", "code": "internal", "exit_code": 1}
    assert PATIENT in (one.site.folder / "site.log").read_text()
