"""Opacus' own private steps, to be timed beside ours. No guarantee of this project rests on anything here.

Opacus clips rows. With one row per patient that is the same thing; with more it is another, weaker mechanism, so those rows of
the table say so instead of giving a time.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

from simulations.bench.subjects import Subject

Mode = Literal["hooks", "functorch", "ghost"]


def opacus_step(subject: Subject, mode: Mode, clip: float, noise: float, learning_rate: float) -> Callable[[], None]:
    """One step of Opacus' optimizer in `mode`: forward, backward, clip, noise, AdamW."""
    model = copy.deepcopy(subject.model)
    plain = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], learning_rate)
    people = len(subject.patients)
    settings = {"noise_multiplier": noise, "max_grad_norm": clip, "expected_batch_size": people, "loss_reduction": "mean"}
    ghost = mode == "ghost"
    # The wrapper puts hooks on the model's leaves; the loss goes on calling the model itself.
    if ghost:
        hooked = GradSampleModuleFastGradientClipping(model, loss_reduction="mean", max_grad_norm=clip, use_ghost_clipping=True)
    else:
        hooked = GradSampleModule(model, loss_reduction="mean", force_functorch=mode == "functorch")
    optimizer = (DPOptimizerFastGradientClipping if ghost else DPOptimizer)(plain, **settings)

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                  # Opacus' and functorch's own, about speed
            losses = subject.loss(model, subject.batch)
            if ghost:
                DPTensorFastGradientClipping(hooked, optimizer, losses, "mean").backward()
            else:
                losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
