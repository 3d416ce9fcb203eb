"""A preset whose three sides, spacings and patch sides all differ, small enough for every law, and a brain of that size."""

from __future__ import annotations

import dataclasses

import torch

from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES, Stage

SMALL = dataclasses.replace(
    PRESETS["tiny"],
    shape=(16, 24, 20),
    spacing_mm=(11.0, 9.0, 10.0),
    patch=(4, 8, 2),
    encoder_width=24,
    encoder_depth=1,
    encoder_heads=2,
    mae_decoder_width=24,
    mae_decoder_depth=1,
    latent_width=4,
    decoder_channels=4,
    generator_width=24,
    generator_depth=2,
    generator_heads=2,
    trajectory_depth=1,
)


def small_brain(*parts: str, seed: int = 0) -> Brain:
    """Every tensor random, so that no branch is silenced by a zero it starts with."""
    torch.manual_seed(seed)
    model = Brain(SMALL, DEFAULT_VARIABLES, parts)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def stage(name: str, trainable: str = "all", **changes: object) -> Stage:
    settings = {
        "name": name, "trainable": trainable, "rounds": 1, "local_steps": 2, "sample_rate": 0.5, "views": 2, "clip": 1.0,
        "learning_rate": 0.1, "share": 1.0,
    }
    return Stage.model_validate(settings | changes)
