"""What a search changes of a recipe: a line of TOML that replaces values of its stages or of its federation."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, cast

from braing3n_core.errors import UsageError
from braing3n_core.plan import TrainingPlan

_TABLES = ("stages", "federation")                           # what is trained and how; patients and measures stay the same


def changed(plan: TrainingPlan, change: str) -> TrainingPlan:
    """The plan with what `change` says of it, for example `stages.generator.clip = 0.8`; stages go by their names.

    Raises UsageError for what is no TOML, changes nothing or anything else, and PlanRefused if the plan does not hold together.
    """
    try:
        said = tomllib.loads(change)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--change {change}: not TOML ({error}); write for example 'stages.generator.clip = 0.8'") from error
    if unknown := sorted(said.keys() - set(_TABLES)):
        raise UsageError(f"--change {change}: it changes {', '.join(unknown)}; a search changes {' and '.join(_TABLES)} alone")
    tables = json.loads(plan.canonical())
    stages = {stage["name"]: stage for stage in tables["stages"]}
    named = said.pop("stages", {})
    if not (isinstance(named, dict) and all(isinstance(values, dict) for values in named.values())):
        raise UsageError(f"--change {change}: it names no value of a stage; write for example 'stages.generator.clip = 0.8'")
    if unknown := sorted(named.keys() - stages.keys()):
        raise UsageError(f"--change {change}: the recipe has no stage {', '.join(unknown)}; it has {', '.join(stages)}")
    tables["stages"] = [_merged(stage, named.get(name, {})) for name, stage in stages.items()]
    other = TrainingPlan.from_json(json.dumps(_merged(tables, said), default=str))             # a date is no value of any key
    if other.digest == plan.digest:
        raise UsageError(f"--change {change}: that is what the recipe says already; leave it out")
    return other


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`one` with the values of `other`, table by table."""
    both = {name: _merged(one[name], cast(Mapping[str, Any], other[name])) for name in one.keys() & other.keys()
            if isinstance(one[name], dict) and isinstance(other[name], dict)}  # fmt: skip
    return {**one, **other, **both}
