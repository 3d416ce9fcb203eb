"""A second library's word on what the accountant claims, and Renyi's looser bound. The only file that knows dp-accounting.

Privacy loss distributions (Koskela et al., arXiv 1906.03049; connecting the dots, Doroshenko et al., arXiv 2207.04380) share no
code with the PRV accountant, so an error would have to be made twice to go unseen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from dp_accounting.pld import privacy_loss_distribution as pld

from privacy.accountant import epsilon, epsilon_upper, merged
from privacy.events import Event, RandomisedResponse
from privacy.randomised_response import flip_probability

AGREES_WITHIN: Final = 0.02                                  # epsilon
_INTERVAL: Final = 1e-3                                      # of privacy loss; pessimistic, and within 0.003 of finer ones


@dataclass(frozen=True)
class Accounts:
    """One history by three accountants. Only `claim` is claimed; infinity: no bound."""

    claim: float                                             # PRV, its error of 0.01 included; votes added
    witness: float | None                                    # PLD; None where it knows no bound: secure sums
    renyi: float                                             # looser by about a tenth

    @property
    def agree(self) -> bool:
        """Whether the witness finds no more than is claimed. It may find less: it adds votes more tightly. None has no say."""
        return self.witness is None or self.witness <= self.claim + AGREES_WITHIN


def accounts(events: Sequence[Event], delta: float) -> Accounts:
    """What `events` cost one patient at `delta`, thrice. A hundred different steps take seconds, most of them the claim's."""
    return Accounts(epsilon(events, delta), epsilon_witness(events, delta), epsilon_upper(events, delta))


def epsilon_witness(events: Sequence[Event], delta: float) -> float | None:
    """Epsilon by privacy loss distributions: an upper bound too, for add-or-remove-one-patient neighbours.

    None if a secure sum is among the events. Infinity as soon as one event has no bound, and 0 for none, as the accountant.
    """
    account = merged(events, delta)
    if account is None:
        return math.inf
    if account.sums:
        return None
    votes = tuple(sorted(event.epsilon for event in events if isinstance(event, RandomisedResponse)))
    return _witnessed(account.gaussians, votes, delta)


@lru_cache(maxsize=4096)
def _witnessed(gaussians: Sequence[tuple[float, float, int]], votes: Sequence[float], delta: float) -> float:
    parts = [_steps(*segment) for segment in gaussians]
    parts += [pld.from_randomized_response(2 * flip_probability(vote), 2, value_discretization_interval=_INTERVAL)
              for vote in votes]                             # fmt: skip
    if not parts:
        return 0.0
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.compose(part)
    found = float(whole.get_epsilon_for_delta(delta))
    return found if found >= 0 else math.inf                 # NaN is no bound


def _steps(sigma: float, rate: float, count: int) -> Any:  # noqa: ANN401 - dp-accounting has no type information
    one = pld.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=_INTERVAL)
    return one.self_compose(count)
