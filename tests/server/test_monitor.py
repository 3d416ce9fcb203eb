"""Who watches a run sees what was charged, in TensorBoard and as JSON lines, and nothing that was measured on patients."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from braing3n_core.journal import FILE as JOURNAL
from server.monitor import begun, ended, round_closed
from server.scalars import FILE, append_scalars, scalars_of
from tests.server.studies import study

PLAN = study()
ROW = {
    "stage": "generator", "round": 1, "replied": ["east", "north"], "refused": {"south": "budget-exhausted"}, "missing": [],
    "epsilon": {"north": 1.5, "east": 1.25, "south": "infinite"}, "numbers": 250_000,
}  # fmt: skip
GOLDEN = (                                                   # tensorboard 2.21, made by tests/golden/tensorboard_events.py
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c39000000000000008b0737f1090000000000"
    "00f83f10ac022a2b0a140a0d657073696c6f6e2f6e6f727468150000a03f0a130a0c657073696c6f6e2f6561737415cdcccc3d7aca5895"
)


def records(path: Path) -> list[bytes]:
    raw, found = path.read_bytes(), []
    while raw:
        (length,) = struct.unpack("<Q", raw[:8])
        found.append(raw[12 : 12 + length])
        raw = raw[16 + length :]
    return found


def test_the_bytes_are_those_that_tensorboard_writes_itself(tmp_path: Path) -> None:
    append_scalars(tmp_path / "events", 1.5, 300, {"epsilon/north": 1.25, "epsilon/east": 0.1})
    assert (tmp_path / "events").read_bytes().hex() == GOLDEN


def test_a_file_is_begun_once_and_continued(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        append_scalars(tmp_path / "events", float(step), step, {"a": 1.0})
    assert len(records(tmp_path / "events")) == 4
    assert b"brain.Event:2" in records(tmp_path / "events")[0]


def test_scalars_are_what_was_charged_and_who_answered() -> None:
    assert scalars_of(ROW) == {
        "epsilon/north": 1.5, "epsilon/east": 1.25, "sites/replied": 2.0, "sites/refused": 1.0, "sites/missing": 0.0,
        "traffic/megabytes a site": 1.0,
    }  # fmt: skip
    assert all(math.isfinite(value) for value in scalars_of({}).values())


def test_a_run_leaves_a_journal_and_scalars_over_all_stages(tmp_path: Path) -> None:
    begun(PLAN, tmp_path, 0, 0)
    round_closed(PLAN, tmp_path, ROW)
    begun(PLAN, tmp_path, 1, 1)
    ended(tmp_path, {"exit_code": 7, "error": "too few sites"})
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begun", "round", "taken up", "ended"]
    before = sum(stage.rounds for stage in PLAN.stages[: [stage.name for stage in PLAN.stages].index("generator")])
    assert (lines[1]["epsilon"]["south"], lines[2]["closed"], lines[3]["exit_code"]) == ("infinite", before + 1, 7)
    assert lines[1]["peak_mb"] > 10, "of this very process, 10^6 bytes"
    event = records(tmp_path / "tensorboard" / FILE)[1]
    assert event[9:11] == bytes((2 << 3, before + 1)), "the step, counted over all stages"


def test_a_place_that_cannot_be_written_stops_no_round(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    round_closed(PLAN, tmp_path, ROW)
    assert (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("value", [0, 127, 128, 2**31])
def test_steps_of_any_length_are_read_back(tmp_path: Path, value: int) -> None:
    append_scalars(tmp_path / "events", 0.0, value, {})
    raw, step, shift = records(tmp_path / "events")[1][10:], 0, 0
    for byte in raw:
        step |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    assert step == value
