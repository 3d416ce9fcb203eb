"""The vote: one patient changes one bit, and the bits that leave are as private as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.accountant import epsilon, epsilon_upper
from privacy.errors import MechanismRefused
from privacy.events import RandomisedResponse, SampledGaussian, from_record, to_record
from privacy.randomised_response import Tally, flip_probability, randomise, tally
from privacy.randomness import ReplayableNoise, SecretNoise

VOTE = RandomisedResponse("copies", 3.0)
votes = st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=30)


@given(votes, st.integers(0, 29))
def test_removing_one_patient_never_changes_more_than_one_bit(cast: list[int | None], place: int) -> None:
    without = cast[:place] + cast[place + 1 :]
    changed = tally(cast, 7).bits != tally(without, 7).bits
    assert changed.sum() <= 1


@given(votes)
def test_a_bit_is_set_exactly_when_somebody_voted_for_it(cast: list[int | None]) -> None:
    assert {int(i) for i in np.flatnonzero(tally(cast, 7).bits)} == {vote for vote in cast if vote is not None}


@pytest.mark.parametrize("paid", [0.5, 2.0, 3.0, 4.0])
def test_the_odds_of_an_answer_never_differ_by_more_than_e_to_the_epsilon(paid: float) -> None:
    """Exactly, over all answers of three bits: neighbours are any two tallies that differ in one bit."""
    flip = flip_probability(paid)

    def chance(answer: int, truth: int) -> float:
        wrong = bin(answer ^ truth).count("1")
        return float(flip**wrong * (1 - flip) ** (3 - wrong))

    ratios = [
        chance(answer, truth) / chance(answer, truth ^ (1 << bit))
        for answer in range(8)
        for truth in range(8)
        for bit in range(3)
    ]
    assert max(ratios) == pytest.approx(math.exp(paid))


def test_bits_are_flipped_as_often_as_was_paid_for() -> None:
    told = randomise(Tally(np.zeros(40_000, np.bool_)), VOTE, SecretNoise())
    flip, spread = flip_probability(3.0), math.sqrt(0.047 * 0.953 / 40_000)
    assert abs(told.mean() - flip) < 6 * spread              # one in a thousand million by chance
    told = randomise(Tally(np.ones(40_000, np.bool_)), VOTE, SecretNoise())
    assert abs((~told).mean() - flip) < 6 * spread


def test_bits_that_are_told_without_flipping_would_be_noticed() -> None:
    honest = np.zeros(40_000, np.bool_)                      # a mechanism that forgot its noise
    assert abs(honest.mean() - flip_probability(3.0)) > 6 * math.sqrt(0.047 * 0.953 / 40_000)


def test_a_vote_is_added_to_everything_else_that_was_paid() -> None:
    training = [SampledGaussian("generator", 2.0, 0.1, 20)]
    alone = epsilon(training, 1e-5)
    assert epsilon([*training, VOTE, VOTE], 1e-5) == pytest.approx(alone + 6.0)
    assert epsilon_upper([*training, VOTE], 1e-5) == pytest.approx(epsilon_upper(training, 1e-5) + 3.0)
    assert epsilon([VOTE], 1e-5) == 3.0


def test_the_sum_is_an_upper_bound_on_the_exact_composition() -> None:
    """Second witness: dp-accounting's privacy loss distributions, which bound it from above too, and more tightly."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    steps = pld.from_gaussian_mechanism(2.0, sampling_prob=0.1, value_discretization_interval=1e-3).self_compose(20)
    exact = steps.compose(pld.from_randomized_response(2 * flip_probability(3.0), 2, value_discretization_interval=1e-3))
    ours = epsilon([SampledGaussian("generator", 2.0, 0.1, 20), VOTE], 1e-5)
    assert exact.get_epsilon_for_delta(1e-5) <= ours <= exact.get_epsilon_for_delta(1e-5) + 0.3


def test_a_seed_that_repeats_the_flips_costs_infinity_and_is_refused_for_a_release() -> None:
    counted = Tally(np.zeros(4, np.bool_))
    with pytest.raises(MechanismRefused, match="state what happened"):
        randomise(counted, VOTE, ReplayableNoise(1))
    assert epsilon([RandomisedResponse("copies", 3.0, replayable=True)], 1e-5) == math.inf


@pytest.mark.parametrize("paid", [0.0, -1.0, math.nan, math.inf])
def test_a_vote_that_costs_nothing_or_everything_is_refused(paid: float) -> None:
    with pytest.raises(MechanismRefused):
        RandomisedResponse("copies", paid)
    with pytest.raises(MechanismRefused):
        flip_probability(paid)


def test_a_vote_for_nobody_is_refused() -> None:
    with pytest.raises(MechanismRefused, match="names candidate 7 of 7"):
        tally([7], 7)
    with pytest.raises(MechanismRefused, match="at least one candidate"):
        tally([], 0)


def test_the_event_reads_back() -> None:
    assert from_record(to_record(VOTE)) == VOTE
