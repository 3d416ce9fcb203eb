"""Somebody with an editor makes a site look as if it had spent less."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.errors import BudgetExhausted, LedgerCorrupt
from privacy.events import SampledGaussian
from privacy.ledger import Ledger

DELTA = 1e-5
Lines = list[bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.jsonl"
    with Ledger(file, DELTA) as ledger:
        for purpose in "abcd":
            ledger.reserve(SampledGaussian("decoder", 5.0, 0.25, 5), purpose, 8.0)
    return file


def quieter(line: bytes) -> bytes:
    return line.replace(b'"noise_multiplier":5.0', b'"noise_multiplier":50.0')


def renumbered(line: bytes) -> bytes:
    record = json.loads(line)
    record["record"]["sequence"] -= 1
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


CRIMES: dict[str, Callable[[Lines], Lines]] = {
    "edit the first reservation": lambda lines: [lines[0], quieter(lines[1]), *lines[2:]],
    "edit the last reservation": lambda lines: [*lines[:-1], quieter(lines[-1])],
    "remove one in the middle": lambda lines: [*lines[:2], *lines[3:]],
    "remove one and renumber the rest": lambda lines: [*lines[:2], *map(renumbered, lines[3:])],
    "swap two": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "repeat one": lambda lines: [*lines, lines[-1]],
    "remove the opening": lambda lines: lines[1:],
    "start the chain anew at the end": lambda lines: [*lines, lines[0]],
    "insert an empty line": lambda lines: [*lines[:2], b"", *lines[2:]],
    "insert a comment": lambda lines: [*lines[:2], b"# nothing to see", *lines[2:]],
    "add a key twice": lambda lines: [*lines[:-1], lines[-1].replace(b'{"digest"', b'{"digest":"x","digest"')],
    "add a space": lambda lines: [*lines[:-1], lines[-1] + b" "],
    "make the rate NaN": lambda lines: [lines[0], lines[1].replace(b'"sample_rate":0.25', b'"sample_rate":NaN'), *lines[2:]],
    "nest without end": lambda lines: [lines[0], b"[" * 100_000, *lines[1:]],
}


@pytest.mark.parametrize("crime", CRIMES)
def test_a_rewritten_ledger_is_refused(path: Path, crime: str) -> None:
    lines = path.read_bytes().splitlines()
    rewritten = CRIMES[crime](lines)
    assert rewritten != lines
    path.write_bytes(b"\n".join(rewritten) + b"\n")
    with pytest.raises(LedgerCorrupt, match="restore the file"):
        Ledger(path, DELTA)


def test_a_nan_limit_buys_nothing(path: Path) -> None:
    with Ledger(path, DELTA) as ledger, pytest.raises(BudgetExhausted):
        ledger.reserve(SampledGaussian("decoder", 5.0, 0.25, 5), "e", math.nan)


def test_tearing_the_last_record_leaves_a_trace(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])
    with Ledger(path, DELTA) as ledger:
        assert len(ledger.events) == 3
    assert json.loads(path.read_bytes().splitlines()[-1])["record"]["kind"] == "recovered"
