"""A run on disk: one whole file per closed round, so that a kill at any instant costs at most the round that was open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.protocol import digest_of
from braing3n_core.state import load, save
from server.coordinator import State

KEPT = 3                                                     # checkpoints: one to use, two in case a disk tears it


def write(folder: Path, plan: str, state: State) -> Path:
    """Put `state` on disk, whole or not at all, and drop all but the newest few. `plan` is the plan's digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"stage-{state.stage:02d}-round-{state.rounds:05d}.safetensors"
    metadata = {
        "plan": plan,
        "stage": str(state.stage),
        "rounds": str(state.rounds),
        "values": digest_of(state.values),
        "spent": json.dumps(dict(state.spent)),
        "moments": json.dumps([digest_of(moment) for moment in state.moments]),
    }
    tensors = {"values": state.values} | {f"moment-{place}": moment for place, moment in enumerate(state.moments)}
    save(path, {name: torch.from_numpy(array) for name, array in tensors.items()}, metadata)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path, plan: str) -> State | None:
    """The newest whole checkpoint; None if there is none. A torn one is passed over, one of another plan refused."""
    for path in _newest_first(folder):
        try:
            return _read(path, plan)
        except IntegrityError:
            continue
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("stage-*-round-*.safetensors"), reverse=True)


def _read(path: Path, plan: str) -> State:
    tensors, metadata = load(path)
    try:
        values = tensors["values"].numpy().astype(np.float32, copy=False)
        moments = tuple(tensors[name].numpy().astype(np.float32, copy=False) for name in sorted(tensors) if name != "values")
        digests = [metadata["values"], *json.loads(metadata.get("moments", "[]"))]
        whole = digests == [digest_of(array) for array in (values, *moments)]
        spent = {str(site): float(epsilon) for site, epsilon in json.loads(metadata["spent"]).items()}
        state = State(int(metadata["stage"]), int(metadata["rounds"]), values, spent, moments)
        theirs = metadata["plan"]
    except (KeyError, ValueError) as error:
        raise IntegrityError(f"{path.name} is not a checkpoint; remove it and resume") from error
    if not whole:
        raise IntegrityError(f"{path.name} does not hold the values it names; remove it and resume")
    if theirs != plan:
        raise PlanRefused(
            f"{path.parent.parent.name} holds a run of another plan ({theirs[:12]}, not {plan[:12]}); "
            "use another output folder, or the plan that began there"
        )
    return state
