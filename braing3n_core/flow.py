"""Rectified flow (Liu et al., arXiv 2209.03003): straight paths from data at t=0 to noise at t=1, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]                # (B, N, C) latents, (B,) times -> (B, N, C)
Sampler = Callable[[Velocity, Tensor, int], Tensor]          # field, starting noise, steps -> data
_REFERENCE_DIMENSION = 4096                                  # of Esser et al., arXiv 2403.03206, and of RAE, arXiv 2510.11690


def time_shift(t: Tensor, dimension: int) -> Tensor:
    """(B,) uniform times -> times moved towards noise for latents of `dimension` numbers (RAE, arXiv 2510.11690)."""
    alpha = math.sqrt(dimension / _REFERENCE_DIMENSION)
    return alpha * t / (1 + (alpha - 1) * t)


def between(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point at time t on the straight path; (B, N, C), (B, N, C), (B,) -> (B, N, C)."""
    t = t[:, None, None]
    return (1 - t) * data + t * noise


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Integrate from noise (t=1) to data (t=0) in `steps` Euler steps: one evaluation each, error of first order in 1/steps."""
    z = noise
    for now, then in pairwise(_times(noise, steps)):
        z = z + (then - now) * velocity(z, z.new_full((len(z),), now))
    return z


def heun(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Integrate from noise (t=1) to data (t=0) in `steps` Heun steps: two evaluations each, error of second order in 1/steps.

    The last step is Euler's, as t=0 needs no look-ahead; its own error shrinks as its square.
    """
    z = noise
    for now, then in pairwise(_times(noise, steps)):
        slope = velocity(z, z.new_full((len(z),), now))
        guess = z + (then - now) * slope
        if then > 0:
            slope = (slope + velocity(guess, z.new_full((len(z),), then))) / 2
        z = z + (then - now) * slope
    return z


def led(velocity: Velocity, move: Callable[[Tensor], Tensor]) -> Velocity:
    """The field that ends where `move`, (B, N, C) -> (B, N, C), would bring the end of the plain one.

    For times above 0: at 0 the flow has ended. Rows that are not moved have the plain velocity, to the bit.
    """

    def field(z: Tensor, t: Tensor) -> Tensor:
        plain, left = velocity(z, t), t[:, None, None]
        end = z - left * plain
        return plain + (end - move(end)) / left

    return field


def middle(velocity: Velocity, noise: Tensor) -> Tensor:
    """(B, N, C): the mean of all that such a field ends in. At pure noise the best velocity is the noise minus that mean.

    The field is asked at `noise` and at its mirror image, so that what it wrongly makes of the noise itself mostly cancels: a
    fifth of people's deviation without it, a thirtieth with it (tiny prior, along the public directions).
    """
    times = noise.new_ones(len(noise))
    return -(velocity(noise, times) + velocity(-noise, times)) / 2


def guided(conditional: Tensor, without: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Guidance with a weight of its own per variable: conditional + sum_k (w_k - 1)(conditional - without_k).

    `without[k]` is the field with variable k alone hidden. All weights 1 is the plain conditional field. With the one
    field that hides every variable it is classifier-free guidance (Ho and Salimans, arXiv 2207.12598); with several it is their
    composition (Liu et al., arXiv 2206.01714), in which the differences of the variables add up.
    """
    field = conditional
    for hidden, weight in zip(without, weights, strict=True):
        field = field + (weight - 1) * (conditional - hidden)
    return field


def _times(noise: Tensor, steps: int) -> list[float]:
    """Falling times from 1 to 0, denser near data for small latents and near noise for large ones."""
    times: list[float] = time_shift(torch.linspace(1, 0, steps + 1), math.prod(noise.shape[1:])).tolist()
    return times
