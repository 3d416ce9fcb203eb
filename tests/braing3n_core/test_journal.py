"""A journal is lines of JSON for its owner alone; it never stops anything and never says NaN."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.journal import FILE, journal, journalled


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=lambda word: 1 / 0) for line in (folder / FILE).read_text().splitlines()]


def test_what_happened_is_a_line_with_its_time_and_its_name(tmp_path: Path) -> None:
    journal(tmp_path / "new", "round", {"stage": "decoder", "epsilon": {"north": math.inf, "south": 0.5}, "time": "a lie"})
    journal(tmp_path / "new", "ended", {"seconds": math.nan})
    first, second = lines(tmp_path / "new")
    assert (first["event"], first["stage"], first["epsilon"]) == ("round", "decoder", {"north": "infinite", "south": 0.5})
    assert str(first["time"]).endswith("+00:00")
    assert second["seconds"] == "not a number"
    assert stat.S_IMODE((tmp_path / "new" / FILE).stat().st_mode) == 0o600


@given(text=st.text())
def test_no_text_breaks_out_of_its_line(text: str, tmp_path_factory: object) -> None:
    folder = tmp_path_factory.mktemp("j")                    # type: ignore[attr-defined]
    said: list[str] = []
    journalled(folder, said.append)(text)
    assert lines(folder)[0]["text"] == text
    assert said == [text]


def test_a_place_that_cannot_be_written_costs_a_line_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal(tmp_path / "file", "round", {})
    assert (tmp_path / "file").read_text() == ""
