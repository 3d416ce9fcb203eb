"""The accountant against a second library, a closed form, and events it must refuse to bound."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from privacy.accountant import calibrate, epsilon, epsilon_across, epsilon_upper
from privacy.errors import MechanismRefused
from privacy.events import NonPrivate, SampledGaussian, Unbounded, from_record, to_record
from privacy.witness import epsilon_witness

SETTINGS = [
    [(1.0, 0.01, 2000)],
    [(0.8, 0.004, 500)],
    [(1.1, 0.02, 5000)],
    [(2.0, 0.064, 1000)],
    [(0.7, 0.05, 20)],
    [(3.5, 0.25, 40)],
    [(8.0, 0.5, 1000)],
    [(4.0, 0.9, 60)],
    [(20.0, 1.0, 500)],
    [(30.0, 0.064, 1000)],
    [(1.5, 1.0, 1)],
    [(60.0, 0.1, 200)],
    [(1.9, 0.25, 20), (1.1, 0.2, 20)],
    [(3.0, 0.3, 12), (6.0, 1.0, 40), (2.0, 0.05, 100)],
    [(1.0, 0.01, 300), (1.2, 0.01, 300), (1.4, 0.01, 300), (1.6, 0.01, 300)],
    [(5.0, 1.0, 10), (5.0, 0.5, 10), (5.0, 0.1, 10)],
    [(0.9, 0.02, 100), (12.0, 0.5, 400)],
    [(2.5, 0.2, 25)] * 3,                                    # retries of one round
    [(4.0, 0.25, 5), (4.0, 0.25, 5), (6.0, 0.2, 5), (40.0, 1.0, 1), (4.0, 0.25, 5)],
    [(1.5 + 0.3 * n, 0.02 * n, 5 + n) for n in range(1, 11)],
]


def events(history: list[tuple[float, float, int]]) -> list[SampledGaussian]:
    return [SampledGaussian("generator", *segment) for segment in history]


def witnessed(history: list[tuple[float, float, int]], interval: float = 1e-4) -> float:
    witness = PLDAccountant(value_discretization_interval=interval)
    for sigma, rate, steps in history:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
        witness.compose(step, steps)
    return float(witness.get_epsilon(1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("history", SETTINGS, ids=str)
def test_epsilon_agrees_with_an_independent_library(history: list[tuple[float, float, int]]) -> None:
    assert epsilon(events(history), 1e-5) == pytest.approx(witnessed(history), abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Optimal order")          # Opacus' Renyi bound, which only sizes its range
@pytest.mark.parametrize("history", [SETTINGS[n] for n in (0, 8, 13, 19)], ids=str)
def test_a_narrower_search_for_the_range_of_losses_changes_nothing(history: list[tuple[float, float, int]]) -> None:
    original = PRVAccountant()
    original.history = list(history)
    with np.errstate(divide="ignore"):                       # log(0) of an impossible loss
        expected = float(original.get_epsilon(1e-5))
    assert epsilon(events(history), 1e-5) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_hundred_different_entries_are_one_account_like_any_other() -> None:
    history = [(1.5 + 0.07 * n, 0.05 + 0.004 * n, 5 + n % 7) for n in range(100)]
    assert epsilon(events(history), 1e-5) == pytest.approx(witnessed(history, 1e-3), abs=0.02)
    assert epsilon_witness(events(history), 1e-5) == pytest.approx(witnessed(history, 1e-3), abs=1e-6)


@pytest.mark.parametrize(("sigma", "steps"), [(20.0, 500), (1.0, 1), (50.0, 100), (3.0, 2)])
def test_full_batches_match_the_closed_form(sigma: float, steps: int) -> None:
    mu, delta = math.sqrt(steps) / sigma, 1e-4
    exact = brentq(lambda e: norm.cdf(-e / mu + mu / 2) - math.exp(e) * norm.cdf(-e / mu - mu / 2) - delta, 0, 50)
    assert exact <= epsilon(events([(sigma, 1.0, steps)]), delta) <= exact + 0.02


def test_a_patient_at_one_site_pays_for_the_worst_site_and_at_several_for_all_of_them() -> None:
    calm, loud = events([(6.0, 0.2, 20)]), events([(2.0, 0.25, 30)])
    sites = [calm, loud, calm]
    assert epsilon_across(sites, 1, 1e-5) == max(epsilon(calm, 1e-5), epsilon(loud, 1e-5))
    assert epsilon_across(sites, 2, 1e-5) == epsilon([*calm, *loud], 1e-5)
    assert epsilon_across(sites, 3, 1e-5) == epsilon([*calm, *loud, *calm], 1e-5)


def test_epsilon_3_at_each_of_several_sites_is_what_the_gaussian_limit_says() -> None:
    """Published values of sqrt(s) mu for s sites at epsilon 3 each; the accountant adds its error of 0.01 to a hundredth."""
    mu = brentq(lambda m: norm.cdf(-3 / m + m / 2) - math.exp(3) * norm.cdf(-3 / m - m / 2) - 1e-5, 0.1, 5)
    sites = [events([(1 / mu, 1.0, 1)])] * 5
    assert [epsilon_across(sites, s, 1e-5) for s in (1, 2, 3, 5)] == pytest.approx([3.0, 4.46, 5.66, 7.67], abs=0.03)


@pytest.mark.parametrize("most", [0, 3, -1])
def test_a_number_of_sites_nobody_can_be_at_is_refused(most: int) -> None:
    with pytest.raises(MechanismRefused):
        epsilon_across([events([(6.0, 0.2, 20)])] * 2, most, 1e-5)
    with pytest.raises(MechanismRefused):
        epsilon_across([], 1, 1e-5)


def test_one_site_without_a_bound_leaves_none() -> None:
    assert epsilon_across([events([(6.0, 0.2, 20)]), [NonPrivate("census")]], 1, 1e-5) == math.inf


def test_rounds_compose_in_one_account_and_do_not_restart() -> None:
    one = epsilon(events([(1.5, 0.2, 10)]), 1e-5)
    three = epsilon(events([(1.5, 0.2, 10)] * 3), 1e-5)
    assert three == pytest.approx(epsilon(events([(1.5, 0.2, 30)]), 1e-5))
    assert three > 1.3 * one


@pytest.mark.parametrize(
    "event", [NonPrivate("census"), Unbounded("?"), SampledGaussian("decoder", 9.0, 0.1, 1, replayable=True)]
)
def test_what_cannot_be_bounded_costs_infinity(event: NonPrivate | Unbounded | SampledGaussian) -> None:
    history = [*events([(4.0, 0.1, 3)]), event]
    assert epsilon(history, 1e-5) == math.inf
    assert epsilon_upper(history, 1e-5) == math.inf


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0


def test_renyi_accounting_is_looser_and_close() -> None:
    history = events([(2.0, 0.064, 1000)])
    assert epsilon(history, 1e-5) <= epsilon_upper(history, 1e-5) <= 1.2 * epsilon(history, 1e-5)


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_calibrated_noise_spends_the_budget_and_never_more(target: float) -> None:
    stages = [(0.25, 20, 0.3), (0.2, 30, 0.7)]
    sigmas = calibrate(stages, target, 1e-5)
    rows = zip(sigmas, stages, strict=True)
    spent = epsilon(events([(sigma, rate, steps) for sigma, (rate, steps, _) in rows]), 1e-5)
    assert 0.99 * target <= spent <= target


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(target: float) -> None:
    with pytest.raises(MechanismRefused):
        calibrate([(0.5, 1, 1.0)], target, 1e-5)


@pytest.mark.parametrize("event", [NonPrivate("encoder"), SampledGaussian("decoder", 1.5, 0.5, 7), Unbounded("x")])
def test_events_survive_their_record(event: NonPrivate | SampledGaussian | Unbounded) -> None:
    assert from_record(to_record(event)) == event


def test_an_event_of_a_later_version_is_unbounded_not_ignored() -> None:
    assert isinstance(from_record({"kind": "Laplace", "scale": 1.0}), Unbounded)
