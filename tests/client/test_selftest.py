"""Broken code is found by the command that an operator runs, and trains nobody."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import selftest
from client.findings import Finding
from privacy.audit import Audit
from privacy.ledger import Ledger
from privacy.steps import GaussianStep
from tests.client.studies import rehearsal, request, site, study
from tests.privacy.broken import BUGS
from tests.privacy.broken_sums import SUM_BUGS
from tests.summed import begun, sites, summed, through

CHECKS = {
    "sensitivity", "noise size", "noise shape", "noise between steps", "noise within a step", "noise beside patients",
    "participation", "participation of couples", "participation twice running", "canary audit", "whole numbers", "noise share",
    "noise of the sum", "noise share's shape", "noise between shares", "noise within a share", "noise share beside patients",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _untested() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """As in a process of its own."""
    selftest.refuse_broken_step.cache_clear()
    selftest.refuse_broken_sum.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the seconds of the attack, which the slow tests have."""
    monkeypatch.setattr(selftest, "audit", lambda _: Audit(1.94, 1.99, 0.5, 1.2, 0.9, 1e-5))


def plant(monkeypatch: pytest.MonkeyPatch, bug: type[GaussianStep]) -> None:
    monkeypatch.setattr(selftest, "DpSgd", bug)


def doctor(*words: str) -> Any:
    """The command as typer runs it, in this process, so that bugs can be planted in what it calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer asks click for a name that click will drop
        from typer.testing import CliRunner

        from client.cli import app
    return CliRunner().invoke(app, ["doctor", "--selftest", *words])


@pytest.mark.slow
def test_the_real_step_passes_the_attack_too() -> None:
    told = doctor("--json")
    assert told.exit_code == 0, told.output
    rows = {one["check"]: one for one in json.loads(told.output)}
    assert set(rows) == CHECKS
    assert {one["state"] for one in rows.values()} == {"ok"}
    assert "epsilon 1.94 is claimed" in rows["canary audit"]["result"]


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["noise over the root of the batch", "the same noise again"])
def test_the_attack_finds_what_is_broken_as_well(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BUGS[bug])
    told = doctor("--json")
    assert told.exit_code == 6
    (attack,) = (one for one in json.loads(told.output) if one["check"] == "canary audit")
    assert (attack["state"], bool(attack["fix"])) == ("refused", True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("bug", BUGS)
def test_every_planted_bug_ends_the_command_with_code_6(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BUGS[bug])
    told = doctor()
    assert told.exit_code == 6
    assert "refused" in told.output
    assert "take part in nothing" in told.output


@pytest.mark.usefixtures("quick")
def test_a_planted_bug_in_a_sum_s_noise_ends_the_command_with_code_6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "noisy_sum", SUM_BUGS["half the variance"])
    told = doctor()
    assert told.exit_code == 6
    assert "noise of the sum" in told.output


@pytest.mark.usefixtures("quick")
def test_the_command_needs_no_site_and_says_what_it_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = doctor()
    assert told.exit_code == 0
    assert all(check in told.output for check in CHECKS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Audit(1.94, 1.99, 0.5, 1.2, 0.9, 1e-5), "ok"),
        (Audit(1.94, 1.99, 0.5, 1.2, 2.5, 1e-5), "look"),
        (Audit(1.94, 1.99, 0.5, 2.5, 0.9, 1e-5), "refused"),
        (Audit(1.94, 1.99, float("nan"), 1.2, 0.9, 1e-5), "refused"),
    ],
)
def test_a_warning_is_looked_at_and_a_refuted_claim_refuses(found: Audit, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "audit", lambda _: found)
    finding: Finding = selftest.selftest()[-1]
    assert finding.state == state
    assert bool(finding.fix) == (state != "ok")


def test_a_broken_step_answers_no_round_and_spends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BUGS["half the noise"])
    header = site(tmp_path).round(request(study())).header
    assert (header["kind"], header["code"], header["exit_code"]) == ("refusal", "mechanism-refused", 6)
    with Ledger(tmp_path / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert ledger.events == ()
    assert "noise size" in (tmp_path / "north" / "site.log").read_text()


def test_only_the_first_round_of_a_run_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, plan = site(tmp_path), study()
    assert here.round(request(plan)).header["kind"] == "update"
    plant(monkeypatch, BUGS["half the noise"])
    forget()
    assert here.round(request(plan, number=2)).header["kind"] == "update"
    assert site(tmp_path / "another").round(request(plan)).header["code"] == "mechanism-refused"


def test_a_rehearsal_without_privacy_claims_nothing_and_is_not_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BUGS["no noise"])
    assert site(tmp_path, rehearsal()).round(request(rehearsal())).header["kind"] == "update"


@pytest.mark.slow
@pytest.mark.parametrize(("taken", "numbers"), [("keys", False), ("numbers", False), ("keys", True), ("numbers", True)])
def test_broken_code_adds_to_no_sum_and_pays_nothing(
    taken: str, numbers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = summed()
    here, summing = sites(plan, tmp_path), begun(plan)
    through(summing, here, taken)                            # up to this step the code was whole
    if numbers:
        monkeypatch.setattr(selftest, "noisy_sum", SUM_BUGS["half the variance"])
    else:
        plant(monkeypatch, BUGS["half the noise"])
    forget()
    header = here["north"].round(summing.requests()["north"]).header
    assert (header["kind"], header["code"], header["exit_code"]) == ("refusal", "mechanism-refused", 6)
    with Ledger(tmp_path / "sites" / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert ledger.events == ()
