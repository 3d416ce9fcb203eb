"""A plan as the TOML that people edit: the inverse of TrainingPlan.load, for plans that keep the default variables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from braing3n_core.plan import TrainingPlan


def as_toml(plan: TrainingPlan) -> str:
    """The file's text. Law: what TrainingPlan.load makes of it is the plan."""
    return "\n".join(_lines(json.loads(plan.canonical()))) + "\n"


def _lines(tables: Mapping[str, Any]) -> Iterator[str]:
    for key in ("study", "question", "seed", "preset"):
        yield f"{key} = {_value(tables[key])}"
    yield f"sites = {_rows(tables['sites'])}"
    yield from _table("data", tables["data"])
    yield from _table("privacy", tables["privacy"])
    for stage in tables["stages"]:
        yield "\n[[stages]]"
        yield from (f"{name} = {_value(value)}" for name, value in stage.items())
    yield from _table("federation", tables["federation"])
    yield from _table("release", tables["release"])


def _table(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n[{name}]"
    for key, value in table.items():
        if key == "cells":
            yield f"cells = {_rows(value)}"
        elif not isinstance(value, dict):
            yield f"{key} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _table(f"{name}.{key}", value)


def _rows(rows: list[object]) -> str:
    return "[\n" + "".join(f"  {_value(row)},\n" for row in rows) + "]"


def _value(value: object) -> str:
    """JSON's strings, numbers and truth values are TOML's; tables and arrays are written on one line."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(_value(item) for item in value) + "]"
        case _:
            return json.dumps(value)
