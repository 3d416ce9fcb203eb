"""The utility law: more patients, more budget and sums over sites never make it louder, and plans are as loud as it says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.law import QUIET, colluders, mu, noise_over_clip, room
from privacy.errors import MechanismRefused

SITES, PATIENTS, EPSILONS = st.integers(2, 50), st.integers(1, 5000), st.floats(0.1, 20)


@pytest.mark.parametrize(("epsilon", "known"), [(0.5, 0.142), (1, 0.268), (3, 0.719), (5, 1.121), (8, 1.666), (10, 2.0)])
def test_mu_is_what_the_literature_has(epsilon: float, known: float) -> None:
    assert mu(epsilon, 1e-5) == pytest.approx(known, abs=1e-3)


def test_the_law_gives_the_numbers_that_were_promised() -> None:
    alone = {epsilon: noise_over_clip("local", 1e5, 1, 900, mu(epsilon, 1e-5)) for epsilon in (3, 8)}
    assert alone == pytest.approx({3: 0.49, 8: 0.21}, abs=0.005)


@given(SITES, PATIENTS, st.integers(1, 1000), EPSILONS)
def test_more_patients_are_never_louder(sites: int, patients: int, more: int, epsilon: float) -> None:
    for kind in ("local", "secure-sum"):
        few, many = (noise_over_clip(kind, 256, sites, n, mu(epsilon, 1e-5)) for n in (patients, patients + more))
        assert many < few


@given(SITES, PATIENTS, EPSILONS, st.floats(0.01, 5))
def test_a_larger_epsilon_is_never_louder(sites: int, patients: int, epsilon: float, more: float) -> None:
    for kind in ("local", "secure-sum"):
        small, large = (noise_over_clip(kind, 256, sites, patients, mu(e, 1e-5)) for e in (epsilon, epsilon + more))
        assert large <= small


@given(SITES, PATIENTS, EPSILONS)
def test_a_secure_sum_is_never_louder_than_local(sites: int, patients: int, epsilon: float) -> None:
    summed, local = (noise_over_clip(kind, 256, sites, patients, mu(epsilon, 1e-5)) for kind in ("secure-sum", "local"))
    assert summed <= local
    assert local / summed == pytest.approx(math.sqrt(sites - colluders(sites)))


@given(SITES, PATIENTS, EPSILONS)
def test_what_has_room_is_quiet_and_no_more_is(sites: int, patients: int, epsilon: float) -> None:
    most = room("local", sites, patients, mu(epsilon, 1e-5))
    assert noise_over_clip("local", most, sites, patients, mu(epsilon, 1e-5)) == pytest.approx(QUIET)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_what_no_noise_gives_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(MechanismRefused):
        mu(epsilon, delta)
