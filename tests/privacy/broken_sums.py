"""Six ways to break a site's numbers for a secure sum, each the real ones but for one thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from privacy.mechanism import Bounded
from privacy.secure_sum import Noisy, Terms, noisy_sum
from privacy.sum_selftest import NumbersOf


def half_the_variance(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    return noisy_sum(contributions, replace(terms, noise_variance=terms.noise_variance / 2))


def shared_as_if_all_were_honest(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    honest = terms.threshold - terms.colluding
    return noisy_sum(contributions, replace(terms, noise_variance=terms.noise_variance * honest / len(terms.sites)))


def the_same_share_again() -> NumbersOf:
    kept: dict[Terms, np.ndarray] = {}

    def numbers_of(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
        share = kept.setdefault(terms, noisy_sum([], terms).values)
        return Noisy(share + _numbers(contributions, terms))

    return numbers_of


def rounded_after_the_sum(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    clipped = [torch.cat([tensor.flatten() for tensor in one.tensors.values()]).double() for one in contributions]
    within = [one for one in clipped if float(one.norm()) <= 1.001 * terms.l2_bound]
    total = terms.scale * sum(within, torch.zeros(terms.size, dtype=torch.float64))
    return Noisy(noisy_sum([], terms).values + np.rint(total.numpy()).astype(np.int64))


def no_bound_on_whole_numbers(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    total = noisy_sum([], terms).values
    for one in contributions:
        flat = torch.cat([tensor.flatten() for tensor in one.tensors.values()]).double().nan_to_num(posinf=1.0)
        total = total + np.rint(terms.scale * flat.numpy()).astype(np.int64)
    return Noisy(total)


def more_noise_for_nobody(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    people = list(contributions)
    return noisy_sum(people, replace(terms, noise_variance=terms.noise_variance / max(len(people), 1)))


def _numbers(contributions: Iterable[Bounded], terms: Terms) -> np.ndarray:
    return noisy_sum(contributions, replace(terms, noise_variance=1e-15)).values


SUM_BUGS: dict[str, NumbersOf] = {
    "half the variance": half_the_variance,
    "shared as if all were honest": shared_as_if_all_were_honest,
    "the same share again": the_same_share_again(),
    "rounded after the sum": rounded_after_the_sum,
    "no bound on whole numbers": no_bound_on_whole_numbers,
    "noise over the root of the batch": more_noise_for_nobody,
}
