"""Rectified flow (Liu et al., arXiv 2209.03003): straight paths from data at t=0 to noise at t=1, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]                # (B, N, C) latents, (B,) times -> (B, N, C)
_REFERENCE_DIMENSION = 4096                                  # of Esser et al., arXiv 2403.03206, and of RAE, arXiv 2510.11690


def time_shift(t: Tensor, dimension: int) -> Tensor:
    """(B,) uniform times -> times moved towards noise for latents of `dimension` numbers (RAE, arXiv 2510.11690)."""
    alpha = math.sqrt(dimension / _REFERENCE_DIMENSION)
    return alpha * t / (1 + (alpha - 1) * t)


def between(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point at time t on the straight path; (B, N, C), (B, N, C), (B,) -> (B, N, C)."""
    t = t[:, None, None]
    return (1 - t) * data + t * noise


def heun(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Integrate from noise (t=1) to data (t=0) in `steps` Heun steps; the last one is Euler, as t=0 needs no look-ahead."""
    times = time_shift(torch.linspace(1, 0, steps + 1), math.prod(noise.shape[1:])).tolist()
    z = noise
    for now, then in pairwise(times):
        slope = velocity(z, z.new_full((len(z),), now))
        guess = z + (then - now) * slope
        if then > 0:
            slope = (slope + velocity(guess, z.new_full((len(z),), then))) / 2
        z = z + (then - now) * slope
    return z


def guided(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598); weight 1 is the plain conditional field."""
    return unconditional + weight * (conditional - unconditional)
