"""The same seed gives the same people; a longer cohort begins with the shorter one."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.flow import euler
from braing3n_core.generate import counterfactuals, generate, noise_of
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


def test_one_weight_for_all_is_the_sum_only_when_one_variable_is_given() -> None:
    person = [{"age": 30.0}]
    together = generate(MODEL, person, 1, steps=2, guidance=2.0)
    alone = generate(MODEL, person, 1, steps=2, guidance={"age": 2.0})
    assert torch.allclose(together, alone, atol=1e-5)
    plain = generate(MODEL, person, 1, steps=2, guidance=1.0)
    assert torch.equal(generate(MODEL, person, 1, steps=2, guidance={"age": 1.0}), plain)
    assert torch.allclose(generate(MODEL, person, 1, steps=2, guidance={"sex": 3.0}), plain, atol=1e-6), "sex was not asked for"
    assert not torch.allclose(alone, plain, atol=1e-4)
    with pytest.raises(UsageError, match="no variable 'agee'"):
        generate(MODEL, person, 1, steps=2, guidance={"agee": 2.0})


def test_a_counterfactual_is_the_same_person_but_for_one_condition() -> None:
    person = {"age": 40.0, "sex": "F"}
    made = counterfactuals(MODEL, person, "age", [40.0, 80.0, None], 5, steps=2, guidance=1.0)
    assert torch.allclose(made[0], generate(MODEL, [person], 5, steps=2, guidance=1.0)[0], atol=1e-6)
    assert torch.allclose(made[2], generate(MODEL, [{"sex": "F"}], 5, steps=2, guidance=1.0)[0], atol=1e-6)
    assert not torch.allclose(made[0], made[1], atol=1e-5)
    with pytest.raises(UsageError, match="no variable 'height'"):
        counterfactuals(MODEL, person, "height", [1.0], 5, steps=2, guidance=1.0)


def test_the_sampler_can_be_chosen() -> None:
    fine = generate(MODEL, PEOPLE, 7, steps=60, guidance=1.0)
    cheap, dear = (generate(MODEL, PEOPLE, 7, steps=6, guidance=1.0, **each) for each in ({"sampler": euler}, {}))
    assert (dear - fine).abs().mean() < (cheap - fine).abs().mean()
