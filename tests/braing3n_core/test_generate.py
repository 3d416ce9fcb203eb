"""The same seed gives the same people; a longer cohort begins with the shorter one."""

from __future__ import annotations

import torch

from braing3n_core.generate import generate, noise_of
from tests.small import SMALL, small_brain

MODEL = small_brain()
PEOPLE = [{"age": 30.0}, {"age": 60.0, "sex": "F"}, {}]


def test_the_same_seed_gives_the_same_volumes() -> None:
    one, two = (generate(MODEL, PEOPLE, 7, steps=3, guidance=1.0) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (3, 1, *SMALL.shape)
    assert not torch.equal(one, generate(MODEL, PEOPLE, 8, steps=3, guidance=1.0))


def test_a_longer_cohort_begins_with_the_shorter_one() -> None:
    longer = generate(MODEL, PEOPLE, 7, steps=3, guidance=1.5, batch=2)
    shorter = generate(MODEL, PEOPLE[:2], 7, steps=3, guidance=1.5, batch=1)
    assert torch.allclose(longer[:2], shorter, atol=1e-5)


def test_shared_noise_differs_by_its_condition_alone() -> None:
    noise = noise_of(MODEL, 1, 1).repeat(2, 1, 1)
    same = generate(MODEL, [{"age": 30.0}] * 2, 0, steps=2, guidance=1.0, noise=noise)
    other = generate(MODEL, [{"age": 20.0}, {"age": 90.0}], 0, steps=2, guidance=1.0, noise=noise)
    assert torch.allclose(same[0], same[1], atol=1e-6)
    assert not torch.allclose(other[0], other[1], atol=1e-6)


def test_intensities_stay_in_their_range() -> None:
    volumes = generate(MODEL, PEOPLE, 3, steps=2, guidance=4.0)
    assert volumes.min() >= 0
    assert volumes.max() <= 1.3
    assert volumes[:, :, MODEL.decoder.brain == 0].abs().max() == 0
