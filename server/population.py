"""The public directions in which populations differ, in closed form from phantoms: what `Population` learns distances along."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from braing3n_core.models.population import DIRECTIONS, Population
from braing3n_core.training import hidden

_RARE = 0.05                                                 # features rarer than this in public keep weights of finite size
_NOTHING = 1e-4                                              # of the rows' norm: differences that are rounding
_PASSES = 8                                                  # draws of hidden conditions per person


@torch.no_grad()
def fit_population(population: Population, people: Tensor, codes: Tensor, scanners: Tensor, seed: int) -> None:
    """Set the generator's public directions and feature scaling.

    `people` (S, N, C) are latents of the public population with their `codes` (S, M); `scanners` (K, N, C) are mean
    latents, one row per scanner. First come the effects of conditions (least squares on features), then the principal
    components of what the scanners' means differ in beyond them; all orthogonal, each of mean square 1.
    """
    centre = people.mean(0)
    effects = _effects(population, (people - centre).flatten(1), codes)                        # (E, NC)
    _set_directions(population, effects, (scanners - centre).flatten(1))
    population.whiten.copy_(_whitening(population, codes, seed))


@torch.no_grad()
def fit_pace(pace: Population, rates: Tensor, codes: Tensor, seed: int) -> None:
    """Set the trajectory's public directions and feature scaling.

    `rates` (S, N, C) are changes of people with `codes` (S, M), as they would be after the longest gap. First come the mean
    rate and the effects of conditions on it, then the principal components of what people's rates differ in beyond them.
    """
    flat = rates.flatten(1)
    mean = flat.mean(0, keepdim=True)
    _set_directions(pace, torch.cat([mean, _effects(pace, flat - mean, codes)]), flat - mean)
    pace.whiten.copy_(_whitening(pace, codes, seed))


def _set_directions(population: Population, effects: Tensor, apart: Tensor) -> None:
    """The leading axes of `effects` (E, NC), then those of the rows `apart` (K, NC) beyond them."""
    first = _axes(effects, DIRECTIONS // 2, _NOTHING * float(effects.norm()))
    rest = _axes(apart - (apart @ first.T) @ first, DIRECTIONS - len(first), _NOTHING * float(apart.norm()))
    rows = torch.cat([first, rest]) * math.sqrt(apart.shape[1])
    population.basis.zero_()
    population.basis[: len(rows)] = rows.reshape(-1, *population.basis.shape[1:])


def _axes(rows: Tensor, most: int, least: float) -> Tensor:
    """(a, NC): at most so many principal axes of the rows, those along which they spread by less than `least` left out."""
    _, spread, axes = torch.linalg.svd(rows, full_matrices=False)
    kept: Tensor = axes[:most][spread[:most] > least]
    return kept


def _effects(population: Population, apart: Tensor, codes: Tensor) -> Tensor:
    """(E, NC): what one standard deviation of each feature that varies in public does to the latents."""
    features = population.features(codes)
    features = features - features.mean(0)
    varies = features.std(0) > 1e-6
    features = features[:, varies] / features[:, varies].std(0)
    solution: Tensor = torch.linalg.lstsq(features, apart, driver="gelsd").solution
    return solution


def _whitening(population: Population, codes: Tensor, seed: int) -> Tensor:
    """Inverse root of the features' second moment under the training's hidden conditions, rare features held back."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.cat([population.features(hidden(codes, generator)) for _ in range(_PASSES)])
    moment = seen.T @ seen / len(seen) + _RARE * torch.eye(seen.shape[1])
    values, vectors = torch.linalg.eigh(moment)
    root: Tensor = (vectors / values.sqrt()) @ vectors.T
    return root
