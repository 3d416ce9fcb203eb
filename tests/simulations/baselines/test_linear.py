"""PCA as a generator, on people who are exactly what it assumes."""

from __future__ import annotations

import pytest
import torch

from simulations.baselines.linear import LinearGaussian, features_of
from tests.small import small_brain

SIDES = (6, 5, 4)


def gaussian_people(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Volumes that answer to one feature along one direction and vary along two others; zero outside the brain."""
    draw = torch.Generator().manual_seed(seed)
    shapes = torch.linalg.qr(torch.randn(int(brain().sum()), 3, generator=torch.Generator().manual_seed(9)))[0].T
    feature = torch.randn(count, 1, generator=draw)
    amounts = torch.cat([2 * feature, torch.randn(count, 2, generator=draw)], 1)
    volumes = torch.zeros(count, 1, *SIDES)
    volumes[:, 0, brain()] = amounts @ shapes
    return volumes, feature


def brain() -> torch.Tensor:
    inside = torch.ones(SIDES, dtype=torch.bool)
    inside[0] = False
    return inside


def test_people_of_three_directions_are_kept_whole() -> None:
    model = LinearGaussian(*gaussian_people(200, 0), brain())
    unseen, _ = gaussian_people(20, 1)
    assert model.rebuilt(unseen, 3) == pytest.approx(unseen, abs=1e-4)
    assert (model.rebuilt(unseen, 1) - unseen).norm() > 0.2 * unseen.norm()
    assert float(model.scores(unseen)[:, :3].norm()) == pytest.approx(float((unseen[:, 0][:, brain()] - model.mean).norm()))


def test_generated_people_answer_as_people_do_and_vary_as_people_do() -> None:
    volumes, feature = gaussian_people(400, 0)
    model = LinearGaussian(volumes, feature, brain())
    asked = torch.linspace(-2, 2, 4000)[:, None]
    made = model.sample(asked, seed=1)
    scores = model._rows(made - made.mean(0)) @ model._rows(volumes[feature[:, 0].argmax()][None] - volumes.mean(0))[0]
    assert torch.corrcoef(torch.stack([scores, asked[:, 0]]))[0, 1] > 0.8
    held = model.sample(torch.zeros(4000, 1), seed=1)
    assert float(held[:, 0][:, brain()].var(0).sum()) == pytest.approx(2.0, rel=0.15), "the two directions nobody asked for"
    assert not held[:, 0][:, ~brain()].any()


def test_what_is_not_known_counts_as_the_mean_and_a_seed_repeats() -> None:
    volumes, feature = gaussian_people(200, 0)
    model = LinearGaussian(volumes, feature, brain())
    unknown, mean = (model.sample(each, seed=2) for each in (torch.full((3, 1), torch.nan), feature.mean(0).expand(3, 1)))
    assert unknown == pytest.approx(mean, abs=1e-5)
    assert torch.equal(mean, model.sample(feature.mean(0).expand(3, 1), seed=2))


def test_words_become_indicators_and_the_unknown_stays_unknown() -> None:
    rows = features_of(small_brain(), [{"age": 60.0, "sex": "F"}, {"sex": "M"}])
    same = features_of(small_brain(), [{"age": 60.0, "sex": "F"}])
    assert torch.equal(rows[0].nan_to_num(-9), same[0].nan_to_num(-9))
    known = ~rows.isnan()
    assert known[0].sum() == known[1].sum() + 1, "an age and two indicators against two indicators"
    assert sorted(rows[1][known[1]].tolist()) == [0.0, 1.0]
