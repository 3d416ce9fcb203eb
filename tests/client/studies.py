"""A study small enough that a round takes a fraction of a second, and sites of it on patients made of numbers."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braing3n_core.data.cohort import Cohort, Excluded, Patient, Scan
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request, initial_values
from client.site import Site
from privacy.ledger import Ledger
from tests.small import SMALL, small_brain


def stage(name: str, trainable: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "trainable": trainable, "rounds": 2, "local_steps": 2, "sample_rate": 0.5, "views": 1, "clip": 1.0,
            "learning_rate": 0.05, "share": 0.5} | changes  # fmt: skip


def study(**changes: Any) -> TrainingPlan:
    tables = {
        "study": "small",
        "seed": 1,
        "sites": [{"name": "north", "patients": 8}, {"name": "south", "patients": 20}],
        "privacy": {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5},
        "stages": [stage("decoder", "group:style"), stage("generator", "lora:1")],
        "federation": {"quorum": 1, "deadline_s": 60.0},
        "release": {"seed": 1, "cells": [{"count": 1, "conditions": {}}]},
    }
    return TrainingPlan.from_json(json.dumps(tables | changes))


def rehearsal(**changes: Any) -> TrainingPlan:
    """The same without privacy: repeats bit for bit, so what two runs have in common can be seen."""
    return study(privacy={"mechanism": "non-private", "epsilon": 8.0, "delta": 1e-5}, rehearsal={}, **changes)


@functools.cache
def _brain() -> Brain:
    return small_brain()


def brain(plan: TrainingPlan) -> Brain:
    return copy.deepcopy(_brain())


def patient(number: int, *, held_out: bool = False, fill: float | None = None, scans: int = 1) -> Patient:
    generator = torch.Generator().manual_seed(number)
    volumes = [torch.rand((1, *SMALL.shape), generator=generator) for _ in range(scans)]
    volumes = volumes if fill is None else [torch.full_like(volume, fill) for volume in volumes]
    conditions = {"age": 60.0, "sex": "F", "diagnosis": None, "modality": "T1w", "ventricles": None, "lesions": None}
    return Patient(f"sub-{number:04d}", tuple(Scan(volume, dict(conditions)) for volume in volumes), held_out)


PEOPLE = (patient(1), patient(2, scans=2), patient(3), patient(4, held_out=True))


class Scans:
    """Stands where load_cohort does: these patients, and how often they were read."""

    def __init__(self, patients: Sequence[Patient] = PEOPLE, error: BaseException | None = None) -> None:
        self.cohort = Cohort(tuple(patients), (Excluded("sub-0099_T1w.nii.gz", "is all zero"),))
        self.error, self.read = error, 0

    def __call__(self, bids: Path, plan: TrainingPlan, cache: Path) -> Cohort:
        self.read += 1
        if self.error is not None:
            raise self.error
        return self.cohort


def site(folder: Path, plan: TrainingPlan | None = None, scans: Scans | None = None, **changes: Any) -> Site:
    settings: dict[str, Any] = {"model_source": brain, "cohort_source": scans or Scans()} | changes
    return Site("north", plan or study(), folder / "north", folder / "bids", **settings)


def request(plan: TrainingPlan, name: str = "decoder", number: int = 1, *, shift: float = 0.0) -> Request:
    places = [known.name for known in plan.stages]
    values = np.concatenate(initial_values(brain(plan), plan)[: places.index(name) + 1]) + np.float32(shift)
    return Request(plan.digest, name, number, values.astype(np.float32))


def charges(folder: Path, plan: TrainingPlan | None = None) -> int:
    """How many times `north` paid."""
    path = folder / "north" / "ledger.jsonl"
    if not path.exists():
        return 0
    with Ledger(path, (plan or study()).privacy.delta) as ledger:
        return len(ledger.events)
