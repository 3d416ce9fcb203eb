"""The self-test of secure sums says nothing about the real numbers and names what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from privacy.mechanism import Bounded
from privacy.secure_sum import Noisy, Terms, noisy_sum
from privacy.sum_selftest import NumbersOf, run_sum
from tests.privacy.broken_sums import SUM_BUGS

CAUGHT_BY = {
    "half the variance": {"noise share", "noise of the sum", "noise share's shape", "noise share beside patients"},
    "shared as if all were honest": {"noise share", "noise of the sum", "noise share's shape", "noise share beside patients"},
    "the same share again": {"noise of the sum", "noise between shares"},
    "rounded after the sum": {"whole numbers"},
    "no bound on whole numbers": {"whole numbers", "noise share beside patients"},
    "noise over the root of the batch": {"noise share beside patients"},
}


def broken_invariants(numbers_of: NumbersOf) -> set[str]:
    return {finding.invariant for finding in run_sum(numbers_of).findings if not finding.holds}


def test_the_real_numbers_pass() -> None:
    result = run_sum()
    assert result.passed, result
    assert len(result.findings) == 7


@pytest.mark.parametrize("bug", SUM_BUGS)
def test_broken_numbers_are_caught_for_what_is_broken(bug: str) -> None:
    by_chance = {"noise share", "noise share's shape"} if bug == "the same share again" else set()  # one draw
    found = broken_invariants(SUM_BUGS[bug])
    assert CAUGHT_BY[bug] <= found <= CAUGHT_BY[bug] | by_chance


def uniform_shares(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    width = round((12 * terms.share_variance + 1) ** 0.5)
    noise = np.random.default_rng().integers(0, width, terms.size) - (width - 1) // 2
    return Noisy(noisy_sum(contributions, Terms(**{**vars(terms), "noise_variance": 1e-15})).values + noise)


def half_a_share_twice(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    whole = noisy_sum([], terms).values
    signal = noisy_sum(contributions, Terms(**{**vars(terms), "noise_variance": 1e-15})).values
    return Noisy(signal + np.tile(whole[: terms.size // 2], 2))


def floats(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    return Noisy(noisy_sum(contributions, terms).values.astype(np.float64))


def someone_twice(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    people = list(contributions)
    return noisy_sum([*people, *people[:1]], terms)


def not_a_number(contributions: Iterable[Bounded], terms: Terms) -> Noisy:
    return Noisy(torch.full((terms.size,), torch.nan).numpy())


@pytest.mark.parametrize(
    ("numbers_of", "invariant"),
    [
        (uniform_shares, "noise share's shape"),
        (half_a_share_twice, "noise within a share"),
        (floats, "whole numbers"),
        (someone_twice, "whole numbers"),
        (not_a_number, "noise share"),
        (not_a_number, "whole numbers"),
    ],
)
def test_what_keeps_the_averages_right_is_caught_too(numbers_of: NumbersOf, invariant: str) -> None:
    assert invariant in broken_invariants(numbers_of)
