"""Whole numbers within their bound, Skellam noise of the right shape, and a Renyi bound that is above the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.stats import chi2
from scipy.stats import skellam as reference

from privacy.accountant import epsilon, epsilon_across, epsilon_upper
from privacy.errors import LedgerCorrupt, MechanismRefused
from privacy.events import RandomisedResponse, SampledGaussian, SecureSummed, from_record, to_record
from privacy.integer_noise import rounded_bound, skellam, whole_numbers
from privacy.mechanism import Bounded, clip
from privacy.randomness import ReplayableNoise, SecretNoise
from privacy.renyi import ORDERS, converted, sampled_gaussian, sampled_skellam


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 200), scale=st.floats(1, 1e5), bound=st.floats(1e-2, 1e2), loud=st.floats(0, 1e6))
def test_whole_numbers_never_pass_their_bound(size: int, scale: float, bound: float, loud: float) -> None:
    vector = loud * torch.randn(size, generator=torch.Generator().manual_seed(size))
    numbers = whole_numbers(clip({"w": vector}, bound), scale)
    assert numbers.dtype == np.int64
    assert math.sqrt(sum(int(n) ** 2 for n in numbers)) <= rounded_bound(bound, scale, size)
    assert np.abs(numbers / scale - clip({"w": vector}, bound).tensors["w"].double().numpy()).max() <= 0.5 / scale + 1e-12


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1.1])
def test_what_claims_a_bound_it_does_not_keep_counts_nothing(poison: float) -> None:
    assert not whole_numbers(Bounded({"w": torch.tensor([poison, 0.0])}, 1.0), 1000.0).any()


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(MechanismRefused):
        whole_numbers(Bounded({"w": torch.zeros(2)}, 1.0), wrong)


@pytest.mark.parametrize("variance", [0.3, 4.0, 900.0])
def test_noise_is_skellam(variance: float) -> None:
    draws = skellam(200_000, variance, SecretNoise())
    reach = math.ceil(3 * math.sqrt(variance))
    inner = np.arange(-reach, reach + 1)
    chances = reference.pmf(inner, variance / 2, variance / 2)
    counts = np.array([(draws == value).sum() for value in inner])
    chances, counts = np.append(chances, 1 - chances.sum()), np.append(counts, len(draws) - counts.sum())
    expected = chances * len(draws)
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), len(inner)) > 1e-6


@pytest.mark.parametrize("variance", [1e6, 1e9])
def test_large_noise_has_its_mean_and_variance(variance: float) -> None:
    draws = skellam(100_000, variance, SecretNoise())
    assert draws.var() == pytest.approx(variance, rel=6 * math.sqrt(2 / len(draws)))
    assert abs(draws.mean()) < 6 * math.sqrt(variance / len(draws))


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e13])
def test_noise_of_no_size_is_refused(wrong: float) -> None:
    with pytest.raises(MechanismRefused):
        skellam(3, wrong, SecretNoise())


def test_the_same_seed_gives_the_same_whole_noise_and_the_system_never_does() -> None:
    assert np.array_equal(skellam(50, 9.0, ReplayableNoise(1)), skellam(50, 9.0, ReplayableNoise(1)))
    assert not np.array_equal(skellam(50, 9.0, SecretNoise()), skellam(50, 9.0, SecretNoise()))


@pytest.mark.parametrize(("sigma", "rate"), [(0.8, 0.01), (2.0, 0.064), (8.0, 0.5), (3.0, 1.0)])
def test_gaussian_divergences_are_another_librarys(sigma: float, rate: float) -> None:
    expected = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=ORDERS[:40].tolist())
    assert sampled_gaussian(sigma, rate)[:40] == pytest.approx(expected, rel=1e-6)


def true_divergences(variance: float, shift: int, rate: float, order: int) -> tuple[float, float]:
    """Both directions, by adding up over every whole number that counts."""
    reach = math.ceil(40 * math.sqrt(variance)) + 40
    x = np.arange(-reach, reach + shift + 1)
    without, shifted = (reference.logpmf(x - s, variance / 2, variance / 2) for s in (0, shift))
    mixture = np.logaddexp(math.log1p(-rate) + without, math.log(rate) + shifted) if rate < 1 else shifted
    seen = np.isfinite(without) & np.isfinite(mixture)
    p, q = mixture[seen], without[seen]
    forth = np.logaddexp.reduce(order * p - (order - 1) * q) / (order - 1)
    back = np.logaddexp.reduce(order * q - (order - 1) * p) / (order - 1)
    return float(forth), float(back)


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("variance", "shift"), [(4.0, 1), (25.0, 3), (100.0, 10)])
def test_the_skellam_bound_is_above_the_truth_in_both_directions(variance: float, shift: int, rate: float) -> None:
    bounds = sampled_skellam(variance, float(shift), 1, rate)
    for place in (0, 1, 3, 6):
        forth, back = true_divergences(variance, shift, rate, int(ORDERS[place]))
        assert back <= forth + 1e-9, "the direction that is not expanded is the smaller one"
        assert forth <= bounds[place] * (1 + 1e-9)
        assert bounds[place] <= 2.5 * forth, "and not far above it"


def test_fine_grained_skellam_costs_what_a_gaussian_costs() -> None:
    fine = SecureSummed("decoder", (3.0 * 2**15) ** 2, 2.0**15, 10**5, 0.1, 50, 1)
    gaussian = SampledGaussian("decoder", 3.0, 0.1, 50)
    assert epsilon([fine], 1e-5) == pytest.approx(converted(50 * sampled_gaussian(3.0, 0.1), 1e-5), rel=1e-4)
    assert epsilon([gaussian], 1e-5) < epsilon([fine], 1e-5) < 1.15 * epsilon([gaussian], 1e-5)


def test_sums_and_gaussians_on_the_same_patients_are_one_account() -> None:
    fine, gaussian = SecureSummed("decoder", 1e9, 2.0**14, 1000, 0.1, 50, 1), SampledGaussian("generator", 3.0, 0.1, 50)
    alone, both = max(epsilon([fine], 1e-5), epsilon([gaussian], 1e-5)), epsilon([fine, gaussian], 1e-5)
    assert alone < both < epsilon([fine], 1e-5) + epsilon([gaussian], 1e-5)
    assert epsilon_upper([fine, gaussian], 1e-5) == both
    twice = epsilon([fine, fine], 1e-5)
    assert twice == epsilon([SecureSummed("decoder", 1e9, 2.0**14, 1000, 0.1, 100, 1)], 1e-5)


def test_votes_are_added_to_whatever_else_was_spent() -> None:
    fine, vote = SecureSummed("decoder", 1e9, 2.0**14, 1000, 0.1, 50, 1), RandomisedResponse("copies", 0.5)
    assert epsilon([fine, vote], 1e-5) == pytest.approx(epsilon([fine], 1e-5) + 0.5)
    assert epsilon_across([[fine, vote], [vote], [vote]], 2, 1e-5) == pytest.approx(epsilon([fine], 1e-5) + 1.0)


def test_a_secure_sum_survives_its_record_and_a_broken_one_does_not() -> None:
    event = SecureSummed("decoder", 1e9, 2.0**14, 1000, 0.1, 50, 1)
    assert from_record(to_record(event)) == event
    with pytest.raises(LedgerCorrupt):
        from_record(to_record(event) | {"noise_variance": -1.0})


@pytest.mark.parametrize(
    "wrong", [{"noise_variance": 0.0}, {"noise_variance": math.nan}, {"l2_bound": math.inf}, {"sample_rate": 0.0}, {"steps": 0},
              {"size": 0}, {"shares": 0}],
)  # fmt: skip
def test_a_sum_without_bound_is_no_event(wrong: dict[str, float]) -> None:
    fields = {"stage": "decoder", "noise_variance": 1e6, "l2_bound": 10.0, "size": 5, "sample_rate": 0.1, "steps": 1,
              "shares": 1}
    with pytest.raises(MechanismRefused):
        SecureSummed(**fields | wrong)  # type: ignore[arg-type]  # wrong values are the test
