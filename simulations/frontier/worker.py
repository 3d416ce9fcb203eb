"""The process that makes points of a frontier, one after another, and before them the scenes that several points share.

A task names the base plan (canonical JSON), the folder, a consortium and a repeat. That is a scene, answered by {"known": ...};
with mechanism, epsilon and what is known of the scene it is a point, answered by {"row": ...}. What goes wrong is answered by
{"refused": the words, "code": their exit code} or {"failed": the error's class, "trace": text}.
"""

from __future__ import annotations

import traceback
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from braing3n_core.errors import Braing3nError, exit_code
from braing3n_core.plan import TrainingPlan
from client.workers import Answer, serve
from privacy.errors import PrivacyError
from simulations.frontier.points import Consortium, Point, base_of, plan_of
from simulations.frontier.row import Known, Scene, known_of, row_of, scene_of


def answer(task: dict[str, Any]) -> Answer:
    """Do one task; what goes wrong with it is its answer."""
    try:
        return _answer(task)
    except (Braing3nError, PrivacyError) as error:
        return {"refused": str(error), "code": exit_code(error)}
    except Exception as error:  # noqa: BLE001 - the caller says which point it was, and keeps the trace
        return {"failed": type(error).__name__, "trace": traceback.format_exc()}


def _answer(task: dict[str, Any]) -> Answer:
    consortium, repeat, out = Consortium(**task["consortium"]), task["repeat"], Path(task["out"])
    plan, scene = _scene(task["plan"], consortium, repeat, out)
    if "known" not in task:
        return {"known": asdict(known_of(plan, scene, _quiet))}
    point = Point(consortium, task["mechanism"], task["epsilon"], repeat, task["change"])
    own = plan_of(TrainingPlan.from_json(task["plan"]), point)
    return {"row": row_of(own, point, scene, Known(**task["known"]), out, _quiet)}


@lru_cache(maxsize=1)                                        # points come scene by scene
def _scene(base: str, consortium: Consortium, repeat: int, out: Path) -> tuple[TrainingPlan, Scene]:
    plan = base_of(TrainingPlan.from_json(base), consortium, repeat)
    return plan, scene_of(plan, out, _quiet)


def _quiet(line: str) -> None:
    """Lines of several points would run into each other; the caller tells which are done."""


if __name__ == "__main__":
    serve(answer)
