"""A site's vote against copies of its patients: one bit per candidate, told truthfully with probability e^eps / (1 + e^eps).

Source: Warner, JASA 1965; its privacy as in Dwork and Roth, Foundations of DP, 3.2. For a signal of one patient it beats a
noisy histogram: at epsilon 4 a lone vote is lost with probability 1.8 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MechanismRefused
from privacy.events import RandomisedResponse
from privacy.randomness import Randomness

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tally:
    """Which candidates at least one patient voted against. Adding or removing one patient changes at most one bit."""

    bits: Bits                                               # (c,)


def tally(votes: Iterable[int | None], candidates: int) -> Tally:
    """Collect the votes, ONE per patient, whatever the number of scans: the index of a candidate, or None for none.

    Guarantee: adding or removing one patient changes at most one bit, because a patient has one vote and bits are "at least
    one". Raises MechanismRefused on a vote for a candidate that is not there.
    """
    if not (type(candidates) is int and candidates >= 1):
        raise MechanismRefused(f"a vote needs at least one candidate, got {candidates}")
    bits = np.zeros(candidates, np.bool_)
    for vote in votes:
        if vote is not None:
            if not (0 <= vote < candidates):
                raise MechanismRefused(f"a vote names candidate {vote} of {candidates}; vote for one that was sent")
            bits[vote] = True
    return Tally(bits)


def flip_probability(epsilon: float) -> float:
    """How often a bit is told wrongly: 1 / (1 + e^epsilon)."""
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise MechanismRefused(f"a vote's epsilon must be a finite positive number, got {epsilon}")
    return 1 / (1 + math.exp(min(epsilon, 700.0)))


def randomise(counted: Tally, event: RandomisedResponse, randomness: Randomness) -> Bits:
    """The bits that may leave: each flipped, on its own, with probability 1 / (1 + e^epsilon).

    Guarantee: the whole vector is `event.epsilon`-differentially private (delta 0) for add-or-remove one patient with all
    scans, whatever the number of candidates and whatever the server chose them to be: neighbours differ in one bit, and one
    bit's odds differ by e^epsilon. Two rounds cost two events.

    | epsilon | a lone vote is lost | an innocent candidate is rejected by one of 3 sites |
    |---------|---------------------|-----------------------------------------------------|
    | 2       | 11.9 %              | 32 %                                                |
    | 3       | 4.7 %               | 14 %                                                |
    | 3.5     | 2.9 %               | 9 %                                                 |
    | 4       | 1.8 %               | 5 %                                                 |
    """
    if event.replayable != randomness.replayable:
        raise MechanismRefused("the event says the noise is secret and it is not, or the reverse; state what happened")
    flips = randomness.uniform(len(counted.bits)).numpy() < flip_probability(event.epsilon)
    return np.asarray(counted.bits ^ flips)
