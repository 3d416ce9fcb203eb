"""Finished runs side by side: what each spent and how good it became, read from their summary.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from braing3n_core.errors import DataRefused

_WIDTH, _NAME = 14, 44


def read(folders: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """Folder -> its summary. Raises DataRefused if one is not there or is not what a run writes."""
    found: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            found[str(folder)] = {"study": summary["study"], "privacy": summary["privacy"], "quality": summary["quality"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataRefused(f"no finished run in {folder}; braing3n-sim run writes its summary.json at the end") from error
    return found


def told(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A column for each run: its private model's numbers, and the public prior's in the first column."""
    yield f"{'':<{_NAME}}{'prior':>{_WIDTH}}" + "".join(f"{Path(folder).name[-_WIDTH + 1:]:>{_WIDTH}}" for folder in runs)
    yield f"{'epsilon spent':<{_NAME}}{0:>{_WIDTH}}" + "".join(f"{_spent(run):>{_WIDTH}}" for run in runs.values())
    first = next(iter(runs.values()))
    for row in first["quality"]:
        privates = "".join(f"{_short(_private(run, row['name'])):>{_WIDTH}}" for run in runs.values())
        yield f"{row['name'][:_NAME - 2]:<{_NAME}}{_short(row['prior']):>{_WIDTH}}{privates}  {row['unit']}, {row['better']}"


def _spent(run: Mapping[str, Any]) -> str:
    spent = [row["epsilon"] for row in run["privacy"]]
    return "infinite" if "infinite" in spent else _short(max(spent, default=None))


def _private(run: Mapping[str, Any], name: str) -> object:
    return next((row["private"] for row in run["quality"] if row["name"] == name), None)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else "-"
