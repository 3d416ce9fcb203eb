"""The accountant against a second library, a closed form, and events it must refuse to bound."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from privacy.accountant import calibrate, epsilon, epsilon_upper
from privacy.errors import MechanismRefused
from privacy.events import NonPrivate, SampledGaussian, Unbounded, from_record, to_record

SETTINGS = [
    [(1.0, 0.01, 2000)],
    [(2.0, 0.064, 1000)],
    [(8.0, 0.5, 1000)],
    [(20.0, 1.0, 500)],
    [(1.9, 0.25, 20), (1.1, 0.2, 20)],
    [(3.0, 0.3, 12), (6.0, 1.0, 40), (2.0, 0.05, 100)],
]


def events(history: list[tuple[float, float, int]]) -> list[SampledGaussian]:
    return [SampledGaussian("generator", *segment) for segment in history]


@pytest.mark.parametrize("history", SETTINGS)
def test_epsilon_agrees_with_an_independent_library(history: list[tuple[float, float, int]]) -> None:
    witness = PLDAccountant()
    for sigma, rate, steps in history:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
        witness.compose(step, steps)
    assert epsilon(events(history), 1e-5) == pytest.approx(witness.get_epsilon(1e-5), abs=0.02)


def test_full_batches_match_the_closed_form() -> None:
    mu, delta = math.sqrt(500) / 20, 1e-4
    exact = brentq(lambda e: norm.cdf(-e / mu + mu / 2) - math.exp(e) * norm.cdf(-e / mu - mu / 2) - delta, 0, 50)
    assert epsilon(events([(20.0, 1.0, 500)]), delta) == pytest.approx(exact, abs=0.02)


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
    history = events(SETTINGS[1])
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
