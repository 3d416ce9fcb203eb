"""One mean of several sites' updates, weighted by cohort sizes that the plan DECLARES and nobody measures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from braing3n_core.errors import ReplyRefused

LARGEST = 1e6                                                # no weight of a model moves by this much; sums stay finite


def checked(site: str, values: object, length: int) -> np.ndarray:
    """A site's update as float32 (length,). Raises ReplyRefused, naming the site, on anything else."""
    if not isinstance(values, np.ndarray):
        raise ReplyRefused(f"{site} sent no array; its log says why, the round goes on without it")
    if not (values.dtype == np.float32 and values.shape == (length,)):
        raise ReplyRefused(
            f"{site} sent {values.dtype} of shape {values.shape}, not float32 ({length},); the round goes on without it"
        )
    if not np.isfinite(values).all():
        raise ReplyRefused(f"{site} sent NaN or infinite numbers; the round goes on without it")
    if not (np.abs(values) <= LARGEST).all():
        raise ReplyRefused(f"{site} sent numbers beyond {LARGEST:g}, which no training makes; the round goes on without it")
    return values


def weighted_mean(updates: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
    """Mean of the sites' updates (n,), each with weight size / sum of the sizes of those who replied.

    Law: a finite convex combination of finite updates, in float64 and independent of the order of sites.
    """
    if not updates:
        raise ReplyRefused("no site replied, so there is nothing to average; wait for the sites and resume")
    total = sum(sizes[site] for site in updates)
    mean = np.zeros(len(next(iter(updates.values()))), np.float64)
    for site in sorted(updates):
        mean += updates[site].astype(np.float64) * (sizes[site] / total)
    return mean.astype(np.float32)
