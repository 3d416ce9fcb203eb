"""Directions found in public are the ones along which populations were made to differ."""

from __future__ import annotations

import torch

from braing3n_core.models.brain import Brain
from braing3n_core.models.population import DIRECTIONS
from braing3n_core.training import hidden
from server.population import fit_population
from tests.small import SMALL, small_brain

PEOPLE, SCANNERS = 400, 30


def planted(seed: int) -> tuple[Brain, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A fitted model, its codes, and (N, C) directions: of age and of scanners, which were planted, and a stranger."""
    draw = torch.Generator().manual_seed(seed)
    model = small_brain()
    size = (model.tokens, SMALL.latent_width)
    age, scanner, stranger = (torch.randn(size, generator=draw) for _ in range(3))
    rows = [{"age": 18 + 77 * float(torch.rand((), generator=draw)), "sex": "M"} for _ in range(PEOPLE)]
    codes = model.codes(rows)
    people = codes[:, 0, None, None] * age + 0.1 * torch.randn(PEOPLE, *size, generator=draw)
    strengths = torch.randn(SCANNERS, 1, 1, generator=draw)
    scanners = people.mean(0) + strengths * scanner + 0.01 * torch.randn(SCANNERS, *size, generator=draw)
    fit_population(model.generator.population, people, codes, scanners, seed=1)
    return model, codes, age, scanner, stranger


def held(model: Brain, direction: torch.Tensor) -> float:
    """Share of a direction's square that lies in the span of the basis."""
    rows = model.generator.population.basis.flatten(1)
    rows = rows[rows.abs().sum(1) > 0]
    unit = rows / rows.norm(dim=1, keepdim=True)
    return float((unit @ direction.flatten()).square().sum() / direction.square().sum())


def test_effects_and_scanners_lie_in_the_basis_and_strangers_do_not() -> None:
    model, _, age, scanner, stranger = planted(3)
    assert held(model, age) > 0.98
    assert held(model, scanner) > 0.98
    assert held(model, stranger) < 0.3


def test_directions_are_orthogonal_and_of_unit_mean_square() -> None:
    rows = planted(4)[0].generator.population.basis.flatten(1)
    gram = rows @ rows.T / rows.shape[1]
    assert gram.shape == (DIRECTIONS, DIRECTIONS)
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-4)
    assert all(abs(float(one)) < 1e-4 or abs(float(one) - 1) < 1e-4 for one in gram.diagonal())


def test_features_of_the_public_are_whitened_and_rare_ones_held_back() -> None:
    model, codes, *_ = planted(5)
    population = model.generator.population
    seen = population.features(hidden(codes.repeat(8, 1), torch.Generator().manual_seed(1))) @ population.whiten
    moment = seen.T @ seen / len(seen)
    assert float(torch.linalg.eigvalsh(moment).max()) <= 1.05
    assert float(population.whiten.abs().max()) <= 1 / 0.05**0.5 + 1e-3
