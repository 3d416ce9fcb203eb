"""A study of three sites and two stages, without a model: the coordinator needs only the lengths."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from braing3n_core.plan import TrainingPlan
from server.coordinator import Coordinator

SIZES = (3, 5)                                               # numbers trained by each of the two stages


def stage(name: str, rounds: int) -> dict[str, Any]:
    steps = {"local_steps": 3, "sample_rate": 0.5, "views": 1, "clip": 1.0, "learning_rate": 0.1, "share": 0.5}
    return {"name": name, "trainable": "all", "rounds": rounds, **steps}


def study(**changes: Any) -> TrainingPlan:
    tables = {
        "study": "smoke",
        "seed": 1,
        "sites": [{"name": "north", "patients": 10}, {"name": "east", "patients": 30}, {"name": "south", "patients": 60}],
        "privacy": {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5},
        "stages": [stage("decoder", 2), stage("generator", 1)],
        "federation": {"quorum": 2, "deadline_s": 60.0},
        "release": {"seed": 1, "cells": [{"count": 2, "conditions": {"age": [20, 90], "sex": ["F"]}}]},
    }
    return TrainingPlan.from_json(json.dumps(tables | changes))


def initial() -> list[np.ndarray]:
    return [np.full(size, index, np.float32) for index, size in enumerate(SIZES)]


def begun(**changes: Any) -> Coordinator:
    return Coordinator(study(**changes), initial())


def header(run: Coordinator, name: str, **changes: Any) -> dict[str, Any]:
    request = run.request()
    asked = {"site": name, "plan": request.plan, "stage": request.stage, "round": request.round, "start": request.digest}
    return asked | changes


def reply(run: Coordinator, site: str, value: float = 1.0) -> None:
    length = len(run.initial[run.state.stage])
    run.accept(site, header(run, site), np.full(length, value, np.float32))
