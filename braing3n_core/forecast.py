"""One person later: from a scan, what is known of the person and the years to come, to the follow-up that is expected.

The change of latents is what is forecast (braing3n_core.models.trajectory). Voxels are the person's own first scan plus what
the change does to the decoded scan, so that detail which latents do not hold stays where it is.
"""

# B people, N tokens, C channels, M variables

from __future__ import annotations

import torch
from torch import Tensor

from braing3n_core.errors import UsageError
from braing3n_core.flow import heun
from braing3n_core.generate import BATCH, BRIGHTEST
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import LONGEST_YEARS

_DRAWS = 4                                                   # pairs of opposite noise that an expectation is taken over
_SEED = 0                                                    # of that noise, which the expectation hardly depends on


@torch.no_grad()
def expected_change(model: Brain, first: Tensor, codes: Tensor, years: Tensor) -> Tensor:
    """(B, N, C) mean change of latents `first` (B, N, C) of people with `codes` (B, M) after `years` (B,).

    At pure noise the best velocity of a flow is noise minus the mean of its data, so one evaluation gives the mean; it is
    taken at a few fixed draws of noise and their opposites, in which what noise does to the network cancels.
    """
    refuse_beyond(years)
    trajectory = model.years
    draws = torch.randn(_DRAWS, *first.shape[1:], generator=torch.Generator().manual_seed(_SEED))
    total = torch.zeros_like(first)
    for noise in torch.cat([draws, -draws]):
        z = noise.expand_as(first)
        total += z - trajectory(z, torch.ones(len(first)), first, codes, years)
    return trajectory.scale * total / (2 * _DRAWS)


@torch.no_grad()
def drawn_change(model: Brain, first: Tensor, codes: Tensor, years: Tensor, noise: Tensor, *, steps: int) -> Tensor:
    """(B, N, C) one change that may well happen: a sample of the flow from `noise` (B, N, C).

    The public trajectory learned pairs of visits under one receive field, so that no draw has a field of its own. The same
    noise at several `years` is one course of events.
    """
    refuse_beyond(years)
    trajectory = model.years
    return trajectory.scale * heun(lambda z, t: trajectory(z, t, first, codes, years), noise, steps)


@torch.no_grad()
def later(model: Brain, volumes: Tensor, first: Tensor, change: Tensor) -> Tensor:
    """(B, 1, D, H, W): the scans `volumes` after a `change` (B, N, C) of their latents `first`."""
    moved = volumes + model.decode(first + change) - model.decode(first)
    return (moved * model.decoder.brain).clamp(0, BRIGHTEST)


@torch.no_grad()
def forecast(model: Brain, volumes: Tensor, codes: Tensor, years: Tensor) -> Tensor:
    """(n, 1, D, H, W): the follow-up that is expected of `volumes` (n, 1, D, H, W) after `years` (n,), a few at a time.

    Raises UsageError if the model has no trajectory or the years are beyond what it was trained for.
    """
    made = []
    for scans, known, gaps in zip(volumes.split(BATCH), codes.split(BATCH), years.split(BATCH), strict=True):
        first = model.encode(scans)
        made.append(later(model, scans, first, expected_change(model, first, known, gaps)))
    return torch.cat(made)


def refuse_beyond(years: Tensor) -> None:
    """Raise UsageError unless every gap is one that a trajectory is trained for."""
    if not bool(((years > 0) & (years <= LONGEST_YEARS)).all()):
        raise UsageError(f"a forecast is for more than 0 and at most {LONGEST_YEARS:g} years")
