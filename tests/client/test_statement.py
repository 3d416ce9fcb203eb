"""An operator reads in words what was spent, and a ledger that lost records is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.errors import DataRefused
from client.statement import beside, in_words, read_statement
from privacy.accountant import epsilon
from privacy.egress import Egress, Ready
from privacy.errors import LedgerCorrupt
from privacy.events import NonPrivate, SampledGaussian, SecureSummed
from privacy.ledger import Ledger
from privacy.witness import Accounts

DELTA, PLAN = 1e-5, "a" * 64
STEP = SampledGaussian("decoder", 4.0, 0.25, 5)


def spend(folder: Path) -> Ledger:
    ledger = Ledger(folder / "ledger.jsonl", DELTA)
    first = ledger.reserve(STEP, f"{PLAN}/decoder/1", 8.0)
    ledger.release(first, "0" * 64)
    ledger.abandon(ledger.reserve(STEP, f"{PLAN}/decoder/2", 8.0))
    Egress(ledger, folder / "audit.jsonl", "site-a").send(Ready("site-a", PLAN))
    return ledger


def test_a_statement_says_what_was_spent_while_the_ledger_is_in_use(tmp_path: Path) -> None:
    with spend(tmp_path) as ledger:
        statement = read_statement(tmp_path, verify=True)
        assert (statement.head, statement.epsilon) == (ledger.head, epsilon([STEP, STEP], DELTA))
    (line,) = statement.lines
    assert (line.plan, line.stage, line.rounds, line.released, line.abandoned) == (PLAN, "decoder", 2, 1, 1)
    assert statement.witness == pytest.approx(statement.epsilon, abs=0.02)
    assert statement.epsilon <= statement.renyi
    text = "\n".join(in_words(statement))
    assert f"a second library finds {statement.witness:.4g} and agrees; Renyi accounting" in text
    assert f"spent: epsilon {statement.epsilon:.4g} at delta 1e-05" in text
    assert "2 rounds paid for, 1 answered, 1 given up" in text
    assert "audit log: every message" in text
    assert json.loads(statement.as_json())["lines"][0]["stage"] == "decoder"


def test_an_infinite_cost_is_said_in_words(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        ledger.reserve(NonPrivate("decoder"), f"{PLAN}/decoder/1", float("inf"))
    assert json.loads(read_statement(tmp_path).as_json())["epsilon"] == "infinite"
    assert "epsilon inf" in next(in_words(read_statement(tmp_path)))


def test_a_rolled_back_ledger_is_found_out_by_the_audit_log(tmp_path: Path) -> None:
    with spend(tmp_path):
        pass
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert read_statement(tmp_path).records == 2             # a shorter chain is whole by itself
    with pytest.raises(LedgerCorrupt, match="lost what line 1"):
        read_statement(tmp_path, verify=True)


def test_an_edited_ledger_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no ledger can be read"):
        read_statement(tmp_path)
    with spend(tmp_path):
        pass
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"steps":5', b'"steps":1', 1))
    with pytest.raises(LedgerCorrupt, match="line 2"):
        read_statement(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(LedgerCorrupt, match="delta"):
        read_statement(tmp_path)


def test_of_secure_sums_it_says_what_is_left_when_all_others_work_together(tmp_path: Path) -> None:
    sums = SecureSummed("decoder", 1.5e9, 2.0**14, 32, 0.5, 2, 3)
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        ledger.reserve(sums, f"{PLAN}/decoder/1/1", 8.0)
    statement = read_statement(tmp_path)
    assert statement.epsilon < statement.alone == epsilon([sums.alone], DELTA)
    assert f"secure sums together: epsilon {statement.alone:.4g}" in "\n".join(in_words(statement))
    with spend(tmp_path / "local"):
        pass
    assert "secure sums" not in "\n".join(in_words(read_statement(tmp_path / "local")))


def test_a_second_library_that_disagrees_is_not_passed_over() -> None:
    assert "DISAGREES" in beside(Accounts(3.0, 3.1, 3.3))
    assert "no second library" in beside(Accounts(3.0, None, 3.0))
