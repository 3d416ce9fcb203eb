"""What the server asks of a site, and how both sides rebuild the same model from it.

A run's whole state is one flat array: the trained tensors of every stage begun so far, stage after stage. The public prior
and that array give the model, so a site that was restarted, or a fresh worker process, needs nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from braing3n_core.errors import ReplyRefused
from braing3n_core.models.brain import Brain
from braing3n_core.models.trainable import merge, select_trainable
from braing3n_core.plan import TrainingPlan
from braing3n_core.state import flatten, unflatten
from privacy.dp_sgd import trainable
from privacy.egress import End
from privacy.sum_words import Step


@dataclass(frozen=True)
class Part:
    """Which step of a round's secure sum is asked for. Every attempt is a sum of its own, with keys of its own.

    `told` is what a site must know of the others (privacy/sum_words.py). keys: nothing; letters: the signed keys of all;
    numbers: the letters to this site; story: whose numbers arrived; shares: the stories that were signed.
    """

    attempt: int                                             # from 1
    step: Step
    told: str


@dataclass(frozen=True)
class Request:
    """One round's work order: where the run stands, and the values everybody starts from.

    With `end`, no training is asked for but how well the values fit: before the first round, or after the last.
    """

    plan: str                                                # the plan's digest
    stage: str
    round: int                                               # 1 to the stage's rounds
    values: np.ndarray                                       # float32 (n,), see at_stage
    part: Part | None = None                                 # of a secure sum; values are empty but where numbers are asked
    end: End | None = None                                   # of the stage (braing3n_core/fit.py)

    @property
    def digest(self) -> str:
        """SHA-256 over the values, hex. A reply names it, so one made from other values is stale."""
        return digest_of(self.values)


def digest_of(values: np.ndarray) -> str:
    """SHA-256 of an array as little-endian float32, hex."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def begin_stage(model: Brain, plan: TrainingPlan, stage: str) -> dict[str, Tensor]:
    """Freeze all but what `stage` trains, earlier stages' factors folded in; the trainable tensors, by name."""
    select_trainable(model, plan.stage(stage), plan.seed)
    return dict(trainable(model))


def initial_values(model: Brain, plan: TrainingPlan) -> tuple[np.ndarray, ...]:
    """What each stage's tensors hold before its first round, one flat array a stage; the prior is left as it was.

    Stages train different networks, so what one of them learns does not move where another begins.
    """
    found = tuple(flatten(begin_stage(model, plan, stage.name)) for stage in plan.stages)
    merge(model)
    model.requires_grad_(False)
    return found


def at_stage(model: Brain, plan: TrainingPlan, stage: str, values: np.ndarray) -> None:
    """Bring the untouched public prior to `stage` of a run: earlier stages finished, this one's tensors set and trainable.

    Raises ReplyRefused when `values` is not as long as the stages up to and including `stage` ask for, or is not finite.
    """
    start = 0
    for known in plan.stages:
        tensors = begin_stage(model, plan, known.name)
        end = len(values) if known.name == stage else start + sum(tensor.numel() for tensor in tensors.values())
        put(tensors, values[start:end])
        start = end
        if known.name == stage:
            return
    plan.stage(stage)                                        # refuses a stage the plan does not have


def beginning(model: Brain, plan: TrainingPlan, stage: str, values: np.ndarray) -> np.ndarray:
    """What `values` of `stage` were before its first round: those of earlier stages, then the stage's own untouched ones."""
    untouched = initial_values(model, plan)[plan.stages.index(plan.stage(stage))]
    return np.concatenate([values[: len(values) - len(untouched)], untouched]).astype(np.float32)


def finished(model: Brain, plan: TrainingPlan, values: np.ndarray) -> None:
    """Bring the untouched public prior to the end of a run, low-rank factors folded in and everything frozen."""
    at_stage(model, plan, plan.stages[-1].name, values)
    merge(model)
    model.requires_grad_(False)


def put(tensors: Mapping[str, Tensor], values: np.ndarray) -> None:
    """Set tensors in place from one flat array. Inverse: braing3n_core.state.flatten."""
    with torch.no_grad():
        for name, tensor in unflatten(values, tensors).items():
            tensors[name].copy_(tensor)


def change(before: np.ndarray, tensors: Mapping[str, Tensor]) -> np.ndarray:
    """What training added to the stage's tensors: `flatten(tensors)` minus the last part of the values it started from."""
    after = flatten(tensors)
    if not len(after) <= len(before):
        raise ReplyRefused(f"{len(after)} trained numbers do not fit values of {len(before)}; the sender has another model")
    difference: np.ndarray = after - before[len(before) - len(after) :]
    return difference
