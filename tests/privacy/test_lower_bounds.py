"""A bound that refutes a true claim is worse than none: how often each does, and that each grows with what is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from privacy.accountant import epsilon
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.lower_bounds import (
    Guesses,
    clopper_pearson_upper,
    covering_mu,
    gaussian_epsilon,
    gaussian_mu,
    one_run_epsilon,
    one_run_mu,
)


def attack(seed: int, mu: float, canaries: int) -> Guesses:
    """What an attacker sees of canaries under exactly mu-Gaussian privacy."""
    rng = np.random.default_rng(seed)
    coins = rng.random(canaries) < 0.5
    return Guesses(rng.normal(size=canaries) + mu * coins, coins)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_a_true_claim_is_refuted_no_more_often_than_stated(mu: float) -> None:
    alpha, runs = 0.1, 60
    most = int(binom.isf(1e-6, runs, alpha))
    attacks = [attack(seed, mu, 400) for seed in range(runs)]
    true = gaussian_epsilon(mu, 1e-5)
    assert sum(one_run_mu(guesses, alpha) > mu for guesses in attacks) <= most
    assert sum(gaussian_mu(guesses, alpha) > mu for guesses in attacks) <= most
    assert sum(one_run_epsilon(guesses, 1e-5, alpha) > true for guesses in attacks) <= most


def test_the_bounds_are_worth_something() -> None:
    guesses, true = attack(0, 2.0, 2000), gaussian_epsilon(2.0, 1e-5)
    steinke, curve = one_run_epsilon(guesses, 1e-5, 0.05), gaussian_epsilon(one_run_mu(guesses, 0.05), 1e-5)
    heuristic = gaussian_epsilon(gaussian_mu(guesses, 0.05), 1e-5)
    assert 0.2 * true < steinke < curve < heuristic < true


def test_a_perfect_attack_on_2000_canaries_certifies_what_the_literature_can() -> None:
    coins = np.random.default_rng(1).integers(0, 2, 2000) == 1          # 1014 in, so the surest 1000 guesses are all right
    perfect = Guesses(coins.astype(float), coins)
    assert one_run_epsilon(perfect, 1e-5, 0.025) == pytest.approx(4.91, abs=0.01)
    assert gaussian_epsilon(one_run_mu(perfect, 0.025), 1e-5) == pytest.approx(8.19, abs=0.02)


@pytest.mark.parametrize("canaries", [100, 1000])
def test_guessing_refutes_nothing(canaries: int) -> None:
    coins = np.arange(canaries) % 2 == 1
    blind = Guesses(np.repeat(np.arange(canaries // 2), 2).astype(float), coins)
    assert one_run_epsilon(blind, 1e-5, 0.01) == one_run_mu(blind, 0.01) == gaussian_mu(blind, 0.01) == 0


@settings(deadline=None, max_examples=20)
@given(better=st.floats(0.5, 4), seed=st.integers(0, 100))
def test_who_knows_more_refutes_more(better: float, seed: int) -> None:
    worse, alike = attack(seed, 0.0, 200), attack(seed, better, 200)
    assert one_run_mu(alike, 0.1) >= one_run_mu(worse, 0.1)
    assert one_run_epsilon(alike, 1e-5, 0.1) >= one_run_epsilon(worse, 1e-5, 0.1)


@pytest.mark.parametrize(("mu", "expected"), [(0.268, 1), (0.719, 3), (1.121, 5), (1.666, 8), (2.0, 10)])
def test_the_gaussian_curve_has_its_published_values(mu: float, expected: float) -> None:
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("mu", [0.0, -1.0, 1e-6])
def test_no_signal_is_no_epsilon(mu: float) -> None:
    assert gaussian_epsilon(mu, 1e-5) == 0


def test_a_large_mu_does_not_overflow() -> None:
    assert math.isfinite(gaussian_epsilon(60.0, 1e-5))


def test_the_covering_curve_allows_what_the_accountant_allows() -> None:
    event, deltas = SampledGaussian("audit", 2.0, 0.1, 100), (1e-2, 1e-4, 1e-6)
    claims = [(epsilon([event], delta), delta) for delta in deltas]
    mu = covering_mu(claims)
    assert all(gaussian_epsilon(mu, delta) >= claimed - 1e-6 for claimed, delta in claims)


@settings(deadline=None, max_examples=50)
@given(trials=st.integers(1, 300), data=st.data())
def test_an_upper_bound_of_a_rate_holds_at_its_level(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    bound = clopper_pearson_upper(successes, trials, 0.01)
    assert binom.cdf(successes, trials, bound) <= 0.01 * (1 + 1e-6) or bound == 1


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(MechanismRefused):
        Guesses(np.array([0.0, math.nan]), np.array([True, False]))
    with pytest.raises(MechanismRefused):
        Guesses(np.zeros(3), np.array([True, False]))
