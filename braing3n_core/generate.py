"""From conditions to volumes: noise, a few Heun steps, decode. Deterministic: the same seed gives the same volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from braing3n_core.flow import guided, heun
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.population import MISSING

BRIGHTEST = 1.3                                              # of the scaled intensities that training saw


def noise_of(model: Brain, seed: int, count: int) -> Tensor:
    """(count, N, C) starting noise; row i depends on (seed, i) alone, so a longer cohort begins with the shorter one."""
    rows = [torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63) for i in range(count)]
    return torch.stack([torch.randn(model.centre.shape, generator=row) for row in rows])


def generate(
    model: Brain,
    conditions: Sequence[Mapping[str, Condition]],
    seed: int,
    *,
    steps: int,
    guidance: float,
    batch: int = 8,
    noise: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(n, 1, D, H, W) volumes, one per row of `conditions`, in [0, 1.3] and zero outside the brain.

    `noise` (n, N, C) in place of the seed's own lets a sweep share one person. `guidance` 1 is the plain conditional field.
    """
    codes = model.codes(conditions)
    start = noise_of(model, seed, len(conditions)) if noise is None else noise
    volumes = []
    for first in range(0, len(codes), batch):
        part = slice(first, first + batch)
        volumes.append(_sampled(model, start[part], codes[part], steps, guidance))
        if progress:
            progress(min(first + batch, len(codes)), len(codes))
    return torch.cat(volumes)


@torch.no_grad()
def _sampled(model: Brain, noise: Tensor, codes: Tensor, steps: int, guidance: float) -> Tensor:
    nothing = torch.full_like(codes, MISSING)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        conditional: Tensor = model.generator(z, t, codes)
        return conditional if guidance == 1 else guided(conditional, model.generator(z, t, nothing), guidance)

    return model.decode(heun(velocity, noise, steps)).clamp(0, BRIGHTEST)
