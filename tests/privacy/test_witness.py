"""A second library beside the claim: it agrees where it should, is heard where it does not, and stays fast."""

from __future__ import annotations

import math

import pytest

from privacy import witness
from privacy.events import Event, NonPrivate, RandomisedResponse, SampledGaussian, SecureSummed
from privacy.witness import AGREES_WITHIN, Accounts, accounts, epsilon_witness
from tests.privacy.test_accountant import SETTINGS, events, witnessed

DELTA = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("history", SETTINGS, ids=str)
def test_claim_and_witness_agree_on_twenty_settings(history: list[tuple[float, float, int]]) -> None:
    spent = accounts(events(history), DELTA)
    assert spent.witness is not None
    assert abs(spent.claim - spent.witness) <= AGREES_WITHIN
    assert spent.agree
    assert spent.claim <= spent.renyi + 0.01, "the claim's own error is in it, and Renyi accounting is looser"


@pytest.mark.slow
@pytest.mark.parametrize("history", [SETTINGS[n] for n in (0, 11, 13, 19)], ids=str)
def test_its_coarser_grid_is_still_an_upper_bound(history: list[tuple[float, float, int]]) -> None:
    fine, ours = witnessed(history), epsilon_witness(events(history), DELTA)
    assert ours is not None
    assert fine - 1e-6 <= ours <= fine + 0.004


def test_votes_are_composed_more_tightly_than_they_are_claimed() -> None:
    history: list[Event] = [SampledGaussian("generator", 2.0, 0.1, 20), RandomisedResponse("copies", 3.0)]
    spent = accounts(history, DELTA)
    assert spent.witness is not None
    assert spent.claim - 0.3 <= spent.witness <= spent.claim
    assert epsilon_witness([RandomisedResponse("copies", 3.0)], DELTA) == pytest.approx(3.0, abs=0.01)


def test_what_has_no_bound_has_none_here_either() -> None:
    assert epsilon_witness([NonPrivate("decoder")], DELTA) == math.inf
    assert epsilon_witness([SampledGaussian("decoder", 9.0, 0.1, 1, replayable=True)], DELTA) == math.inf
    assert epsilon_witness([], DELTA) == 0
    assert accounts([NonPrivate("decoder")], DELTA).agree


def test_a_secure_sum_has_no_witness_and_says_so() -> None:
    spent = accounts([SecureSummed("decoder", 1e6, 10.0, 5, 0.5, 3, 3)], DELTA)
    assert spent.witness is None
    assert spent.agree
    assert spent.renyi == spent.claim


def test_a_claim_below_the_witness_is_found_out() -> None:
    assert not Accounts(3.0, 3.03, 3.3).agree
    assert not Accounts(3.0, math.nan, 3.3).agree
    assert Accounts(3.0, 2.5, 3.3).agree


def test_a_history_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    history = events([(3.3, 0.21, 7), (4.4, 0.1, 9)])
    first = epsilon_witness(history, DELTA)
    monkeypatch.setattr(witness, "_steps", lambda *_: pytest.fail("composed again"))
    assert epsilon_witness(list(reversed(history)), DELTA) == first

