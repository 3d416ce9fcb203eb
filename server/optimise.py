"""One resumable optimisation loop for public data: AdamW, warm-up, cosine decay, averaged weights. Nothing private in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from braing3n_core.plan import Frozen
from braing3n_core.state import load, save

Say = Callable[[str], None]
_KEEP_EVERY = 250                                            # steps between resumable states
_SAY_EVERY = 50
_WARM_UP = 100                                               # steps
_LAST_RATE = 0.02                                            # of the learning rate, at the end of the cosine
_LARGEST_GRADIENT = 1.0                                      # L2


class Phase(Frozen):
    """How long and how fast."""

    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat


class Run:
    """Weights, their average and the optimizer's state after some steps; what is kept on disk and resumed from."""

    def __init__(self, weights: Mapping[str, nn.Parameter], phase: Phase) -> None:
        self.weights, self.step = dict(weights), 0
        self.average = {name: p.detach().clone() for name, p in weights.items()}
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=phase.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)

    def keep(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        tensors: dict[str, Tensor] = {f"weight/{name}": p for name, p in self.weights.items()}
        tensors |= {f"average/{name}": t for name, t in self.average.items()}
        for name, parameter in self.weights.items():
            tensors |= {f"adam/{name}/{key}": value for key, value in self.optimizer.state[parameter].items()}
        save(path, tensors, {"step": str(self.step)})

    def resume(self, path: Path) -> None:
        """Go on from what `keep` wrote, if it is there."""
        if not path.exists():
            return
        tensors, metadata = load(path)
        self.step = int(metadata["step"])
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(tensors[f"weight/{name}"])
                self.average[name] = tensors[f"average/{name}"]
                own = f"adam/{name}/"
                self.optimizer.state[parameter] = {k.removeprefix(own): t for k, t in tensors.items() if k.startswith(own)}


def fit(
    label: str,
    weights: Mapping[str, nn.Parameter],
    loss_at: Callable[[int], Tensor],
    phase: Phase,
    decay: float,
    kept: Path,
    say: Say,
) -> dict[str, Tensor]:
    """Minimise `loss_at(step)`, a scalar, over `weights`; return their exponential moving average.

    `loss_at` draws from the step alone, so a run stopped at any step and started again gives the same weights.
    """
    run = Run(weights, phase)
    run.resume(kept)
    began, first, recent = monotonic(), run.step, math.nan
    while run.step < phase.steps:
        loss = loss_at(run.step)
        _descend(run, loss, phase, decay)
        now = float(loss.detach())
        recent = now if math.isnan(recent) else 0.98 * recent + 0.02 * now
        if run.step % _SAY_EVERY == 0 or run.step == phase.steps:
            rate = (run.step - first) / (monotonic() - began)
            left = (phase.steps - run.step) / rate
            say(f"{label}: step {run.step} of {phase.steps}, loss {recent:.4f}, {rate:.1f} steps/s, ETA {left:.0f} s")
        if run.step % _KEEP_EVERY == 0 or run.step == phase.steps:
            run.keep(kept)
    return run.average


def _descend(run: Run, loss: Tensor, phase: Phase, decay: float) -> None:
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.weights.values(), _LARGEST_GRADIENT)
    for group in run.optimizer.param_groups:
        group["lr"] = phase.learning_rate * _pace(run.step, phase.steps)
    run.optimizer.step()
    run.step += 1
    slower = min(decay, (run.step + 1) / (run.step + 10))    # the average forgets its start quickly
    for name, tensor in run.average.items():
        tensor.lerp_(run.weights[name].detach(), 1 - slower)


def _pace(step: int, steps: int) -> float:
    """Share of the learning rate at `step`: linear warm-up, then half a cosine."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    return warm * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2)
