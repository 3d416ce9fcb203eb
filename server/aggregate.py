"""One change from several sites' updates. Weights are the cohort sizes that the plan DECLARES and nobody measures.

All of it is arithmetic on what the sites made private already (post-processing), so it costs no budget.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from braing3n_core.errors import PlanRefused, ReplyRefused
from braing3n_core.plan import Aggregate

LARGEST = 1e6                                                # no weight of a model moves by this much; sums stay finite
LARGEST_COHORT = 1 << 20                                     # patients of one site; with it, 4,000 sites' sums are exact
_COARSE, _FINE = 2.0**-10, 2.0**-60                          # units of the two halves of a sum
_AT_ONCE = 1 << 18                                           # numbers ranked at once, to keep memory flat


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


def bounded(values: np.ndarray, norm_bound: float) -> np.ndarray:
    """The update (n,) with an L2 norm of at most `norm_bound`, so that one site moves the model by so much and no more."""
    norm = float(np.linalg.norm(values.astype(np.float64)))
    if norm <= norm_bound:
        return values
    scaled: np.ndarray = (values.astype(np.float64) * (norm_bound / norm)).astype(np.float32)
    return scaled


class Aggregator(Protocol):
    """One round's updates on their way to one change."""

    def add(self, values: np.ndarray, patients: int) -> None:
        """Take in one site's checked update (n,), with the patients it declares."""

    def result(self) -> np.ndarray:
        """The change (n,) float32. Raises ReplyRefused if nothing was added."""


class Mean:
    """Mean weighted by declared patients, added up as updates come: memory for one sum, however many sites there are.

    Laws: bit for bit the same in whatever order sites reply; never outside the range of what was sent, up to rounding and
    1e-18. Sums are whole numbers: hi units of 2^-10 and lo units of 2^-60, exact for all that a float32 below LARGEST holds.
    """

    def __init__(self, length: int) -> None:
        self._hi, self._lo = np.zeros(length, np.int64), np.zeros(length, np.int64)
        self._patients = 0

    def add(self, values: np.ndarray, patients: int) -> None:
        """See Aggregator."""
        if not 0 < patients <= LARGEST_COHORT:
            raise PlanRefused(f"a site declares {patients} patients; between 1 and {LARGEST_COHORT} can be averaged")
        weighted = values.astype(np.float64) * patients       # exact: 24 bits times at most 21
        hi = np.rint(weighted / _COARSE)
        self._hi += hi.astype(np.int64)
        self._lo += np.rint((weighted - hi * _COARSE) / _FINE).astype(np.int64)
        self._patients += patients

    def result(self) -> np.ndarray:
        """See Aggregator."""
        if not self._patients:
            raise ReplyRefused("no site replied, so there is nothing to average; wait for the sites and resume")
        mean: np.ndarray = (self._hi * _COARSE + self._lo * _FINE) / self._patients
        return mean.astype(np.float32)


class Ranked:
    """Median, or mean without the `trim` smallest and largest of each number, every site counted once.

    With at most `trim` lying sites (for the median: fewer than half) each number stays within the honest sites' range,
    whatever the liars send (Yin et al., ICML 2018). All updates are held until the round closes: memory grows with the sites.
    """

    def __init__(self, trim: int | None) -> None:
        self._trim = trim                                    # None: the median
        self._held: list[np.ndarray] = []

    def add(self, values: np.ndarray, patients: int) -> None:
        """See Aggregator; how many patients a site declares gives it no more say here."""
        self._held.append(values)

    def result(self) -> np.ndarray:
        """See Aggregator."""
        if not self._held:
            raise ReplyRefused("no site replied, so there is nothing to average; wait for the sites and resume")
        if self._trim is not None and not len(self._held) > 2 * self._trim:
            raise ReplyRefused(f"{len(self._held)} replies cannot lose {self._trim} at each end; wait for more sites")
        pieces = range(0, len(self._held[0]), _AT_ONCE)
        return np.concatenate([self._ranked(slice(begin, begin + _AT_ONCE)) for begin in pieces])

    def _ranked(self, piece: slice) -> np.ndarray:
        ordered = np.sort(np.stack([values[piece] for values in self._held]), axis=0).astype(np.float64)
        if self._trim is None:
            middle: np.ndarray = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
            return middle.astype(np.float32)
        kept: np.ndarray = ordered[self._trim : len(ordered) - self._trim].mean(axis=0)
        return kept.astype(np.float32)


def aggregator(how: Aggregate | None, length: int) -> Aggregator:
    """What the plan asks for; without a word of it, the weighted mean."""
    match how.rule if how else "mean":
        case "median":
            return Ranked(None)
        case "trimmed-mean":
            return Ranked(how.trim if how else 1)
        case _:
            return Mean(length)
