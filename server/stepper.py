"""What the server does with a round's change: take it, or treat it as a gradient (Reddi et al., ICLR 2021, algorithm 2)."""

from __future__ import annotations

import numpy as np

from braing3n_core.errors import IntegrityError
from braing3n_core.plan import Optimizer

Moments = tuple[np.ndarray, ...]                             # float32 (n,) each; () before a stage's first round


def step(how: Optimizer | None, change: np.ndarray, moments: Moments) -> tuple[np.ndarray, Moments]:
    """What is added to the values, (n,) float32, and the moments for the next round. Post-processing: costs no budget."""
    if how is None:
        return change, ()
    wanted = 1 if how.kind == "momentum" else 2
    before = moments or tuple(np.zeros_like(change) for _ in range(wanted))
    if not (len(before) == wanted and all(moment.shape == change.shape for moment in before)):
        raise IntegrityError("the run's moments do not fit its plan; remove the newest checkpoint and resume")
    delta, first = change.astype(np.float64), before[0].astype(np.float64)
    if how.kind == "momentum":
        first = how.momentum * first + delta
        return _single(how.rate * first), (_single(first),)
    first = how.momentum * first + (1 - how.momentum) * delta
    second = _second(how, delta, before[1].astype(np.float64))
    return _single(how.rate * first / (np.sqrt(second) + how.floor)), (_single(first), _single(second))


def _second(how: Optimizer, delta: np.ndarray, before: np.ndarray) -> np.ndarray:
    squared = delta**2
    if how.kind == "adam":
        return np.asarray(how.memory * before + (1 - how.memory) * squared)
    moved = before - (1 - how.memory) * squared * np.sign(before - squared)      # yogi: additive, so slow to forget
    return np.asarray(np.maximum(moved, 0.0))


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
