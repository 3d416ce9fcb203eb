"""Finished runs side by side: what each spent and how good it became, read from their summary.json.

Runs of one plan that differ in the seed alone are repeats: one column, their mean, and its 95 % interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from braing3n_core import metrics
from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan

_WIDTH, _NAME = 18, 44


def read(folders: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """Folder -> its summary. Raises DataRefused if one is not there or is not what a run writes."""
    found: dict[str, Mapping[str, Any]] = {}
    for folder in folders:
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            plan = TrainingPlan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
            found[str(folder)] = {"study": summary["study"], "privacy": summary["privacy"], "quality": summary["quality"],
                                  "seed": plan.seed, "but_for_the_seed": plan.but(seed=0).digest}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataRefused(f"no finished run in {folder}; braing3n-sim run writes its summary.json at the end") from error
    return found


def told(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A column for each plan: its private model's numbers, and the public prior's in the first column."""
    columns: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for folder, run in runs.items():
        columns.setdefault(run["but_for_the_seed"], []).append((folder, run))
    groups = [[run for _, run in group] for group in columns.values()]
    yield f"{'':<{_NAME}}{'prior':>{_WIDTH}}" + "".join(f"{_head(group):>{_WIDTH}}" for group in columns.values())
    yield f"{'epsilon spent':<{_NAME}}{0:>{_WIDTH}}" + "".join(f"{_spent(group):>{_WIDTH}}" for group in groups)
    for row in groups[0][0]["quality"]:
        prior = _with_interval([_number(run, row["name"], "prior") for run in groups[0]])
        privates = "".join(
            f"{_with_interval([_number(run, row['name'], 'private') for run in group]):>{_WIDTH}}" for group in groups
        )
        yield f"{row['name'][:_NAME - 2]:<{_NAME}}{prior:>{_WIDTH}}{privates}  {row['unit']}, {row['better']}"
    if any(len(group) > 1 for group in groups):
        yield "+- 95 % interval of the mean over runs that differ in the seed alone"


def _head(group: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    name, many = Path(group[0][0]).name, len(group)
    return name[-_WIDTH + 1 :] if many == 1 else f"{name[-_WIDTH + 9 :]}, {many} runs"


def _spent(group: Sequence[Mapping[str, Any]]) -> str:
    spent = [row["epsilon"] for run in group for row in run["privacy"]]
    return "infinite" if "infinite" in spent else _short(max(spent, default=None))


def _number(run: Mapping[str, Any], name: str, arm: str) -> object:
    return next((row[arm] for row in run["quality"] if row["name"] == name), None)


def _with_interval(values: Sequence[object]) -> str:
    """The mean of those that are numbers, and its interval if there are several."""
    numbers = [float(value) for value in values if isinstance(value, float | int)]
    if not numbers:
        return "-"
    half = metrics.repeats_interval(numbers)
    return _short(fmean(numbers)) + ("" if half is None else f" +- {half:.2g}")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else "-"
