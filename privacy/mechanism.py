"""Clip and noise: the two operations every guarantee of the project rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privacy.errors import MechanismRefused
from privacy.randomness import Randomness

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Bounded:
    """Tensors that carry their own sensitivity: adding or removing one patient moves them by at most `l2_bound`."""

    tensors: Tensors
    l2_bound: float


def l2_norm(tensors: Tensors) -> float:
    """Joint L2 norm over all tensors, in float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def clip(tensors: Tensors, l2_bound: float) -> Bounded:
    """Scale one patient's contribution so that its joint L2 norm is at most `l2_bound`.

    Guarantee: the result is finite and its norm is <= l2_bound, up to the rounding of the stored dtype, whatever the
    input.

    | input norm        | result            |
    |-------------------|-------------------|
    | <= l2_bound       | unchanged         |
    | > l2_bound        | scaled onto bound |
    | 0                 | unchanged (zero)  |
    | NaN or infinite   | all zeros         |
    """
    norm = l2_norm(tensors)
    scale = float(clip_factors(torch.tensor([norm], dtype=torch.float64), l2_bound))
    if not math.isfinite(norm):
        return Bounded({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, l2_bound)
    # In double: a float32 gradient of 1e38 needs a scale that float32 holds only as a denormal.
    return Bounded({name: (t.double() * scale).to(t.dtype) for name, t in tensors.items()}, l2_bound)


def clip_factors(norms: Tensor, l2_bound: float) -> Tensor:
    """(P,) float64 norms -> (P,) what each contribution is multiplied by: the table of `clip`, a patient a row.

    A norm that is not finite gives 0; the caller must not multiply it with a contribution that is not finite.
    """
    _refuse_bound(l2_bound)
    return torch.where(norms.isfinite(), (l2_bound / norms).clamp(max=1), 0.0)


def add_noise(total: Bounded, noise_multiplier: float, randomness: Randomness) -> dict[str, Tensor]:
    """Gaussian mechanism on a sum of clipped contributions: standard deviation `noise_multiplier * l2_bound`.

    Guarantee: one release costs what `events.SampledGaussian` with this multiplier and one step says, for add-or-remove
    one patient, provided `total` is a sum over a Poisson sample in which each patient was clipped to `l2_bound`.
    """
    if not (noise_multiplier > 0 and math.isfinite(noise_multiplier)):
        raise MechanismRefused(f"noise multiplier {noise_multiplier} must be a finite positive number")
    deviation = noise_multiplier * total.l2_bound
    draws = randomness.normal(sum(tensor.numel() for tensor in total.tensors.values()))
    noise = draws.split([tensor.numel() for tensor in total.tensors.values()])
    return {
        name: _noisy(tensor, part, deviation) for part, (name, tensor) in zip(noise, total.tensors.items(), strict=True)
    }


def _noisy(tensor: Tensor, draws: Tensor, deviation: float) -> Tensor:
    """In float64, because a draw is, and rounded once; on a copy, because the sum may be of that type already."""
    wide = tensor.to(torch.float64, copy=True)
    return wide.add_(draws.view(tensor.shape).to(tensor.device), alpha=deviation).to(tensor.dtype)


def _refuse_bound(l2_bound: float) -> None:
    if not (l2_bound > 0 and math.isfinite(l2_bound)):
        raise MechanismRefused(f"the clipping bound must be a finite positive number, got {l2_bound}")
