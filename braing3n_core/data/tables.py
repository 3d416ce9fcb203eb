"""Tables with one header row: participants.tsv, sessions.tsv, a hospital's CSV in; tab-separated results out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically

NOT_AVAILABLE = frozenset({"n/a", ""})                       # BIDS writes n/a; an empty cell can mean nothing else
_MOST_BYTES = 2**26
Row = dict[str, str]


class _Tabs(csv.excel):
    """Between tabs a quotation mark is a character like any other."""

    quoting = csv.QUOTE_NONE


def read_table(path: Path, delimiter: str = "\t") -> tuple[list[str], list[Row]]:
    """Header and rows, cells stripped. Strict: one header, equal cells in every row, UTF-8. Raises DataRefused."""
    dialect = _Tabs if delimiter == "\t" else csv.excel
    try:
        lines = [line for line in csv.reader(_text(path).splitlines(), dialect, delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise DataRefused(f"{path.name} is no table ({error}); save it again as text with one separator") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if len(set(header)) != len(header):
        raise DataRefused(f"{path.name} names a column twice; keep one of each")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            cells = f"{len(line)} cells under {len(header)} columns"
            raise DataRefused(f"{path.name} row {number} has {cells}; separate them by {_word(delimiter)}")
        rows.append(dict(zip(header, (cell.strip() for cell in line), strict=True)))
    return header, rows


def delimiter_of(path: Path) -> str:
    """The separator of a table that people made: tab, semicolon or comma, whichever its first line has most of."""
    first = (_text(path).splitlines() or [""])[0]
    return max("\t;,", key=first.count)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Tab-separated UTF-8, whole or not at all. A tab or line break inside a cell, as a file's name may hold, is escaped."""
    lines = ["\t".join(_cell(cell) for cell in row) for row in (header, *rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8"))


def _cell(text: str) -> str:
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")               # names on disk need not be UTF-8
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in whole)


def _word(delimiter: str) -> str:
    return {"\t": "tabs", ";": "semicolons"}.get(delimiter, "commas")


def _text(path: Path) -> str:
    if not path.is_file():                                   # a pipe would be waited for without end
        raise DataRefused(f"no {path.name} in folder {path.parent}, so no patient is known; add it")
    if not path.stat().st_size <= _MOST_BYTES:
        raise DataRefused(f"{path.name} has more than {_MOST_BYTES >> 20} MiB, too many for patients; check the file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataRefused(f"{path.name} is not readable as UTF-8 text; save it again as a table in UTF-8") from error
