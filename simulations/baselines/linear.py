"""PCA as a generator: people as a linear function of their conditions, and what is left as a Gaussian along the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.population import MISSING
from braing3n_core.plan import Categorical

_COMPONENTS = 64                                             # that people are drawn along
_RIDGE = 1.0                                                 # of features of variance 1: one row without any effect


class LinearGaussian:
    """Fitted to (n, 1, D, H, W) volumes and (n, F) features of their people, inside (D, H, W) `brain`. Needs n > 64."""

    def __init__(self, volumes: Tensor, features: Tensor, brain: Tensor) -> None:
        self._brain = brain
        rows = self._rows(volumes)
        self.mean = rows.mean(0)
        _, _, axes = torch.linalg.svd(rows - self.mean, full_matrices=False)
        self._all, self._axes = axes, axes[:_COMPONENTS]     # (n, v), (K, v)
        scores = self.scores(volumes)
        self._centre, self._unit = features.mean(0), features.std(0).clamp_min(1e-6)
        known = self._normal(features)
        gram = known.T @ known + _RIDGE * torch.eye(known.shape[1])
        self._respond = torch.linalg.solve(gram, known.T @ scores)                             # (F, K)
        left = scores - known @ self._respond
        self._spread = torch.linalg.cholesky(left.T @ left / len(left) + 1e-6 * torch.eye(len(self._axes)))

    def scores(self, volumes: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, K) along the components."""
        along: Tensor = (self._rows(volumes) - self.mean) @ self._axes.T
        return along

    def rebuilt(self, volumes: Tensor, components: int) -> Tensor:
        """(B, 1, D, H, W) -> the nearest volumes that so many components can make."""
        axes = self._all[:components]
        return self._volumes((self._rows(volumes) - self.mean) @ axes.T @ axes)

    def sample(self, features: Tensor, seed: int) -> Tensor:
        """(B, F) features -> (B, 1, D, H, W) people; a feature that is not known is NaN and counts as the mean."""
        known = self._normal(features).nan_to_num()
        draw = torch.randn(len(features), len(self._axes), generator=torch.Generator().manual_seed(seed))
        return self._volumes((known @ self._respond + draw @ self._spread.T) @ self._axes)

    def _normal(self, features: Tensor) -> Tensor:
        return (features - self._centre) / self._unit

    def _rows(self, volumes: Tensor) -> Tensor:
        return volumes[:, 0][:, self._brain].float()

    def _volumes(self, differences: Tensor) -> Tensor:
        """(B, v) from the mean -> (B, 1, D, H, W)."""
        made = torch.zeros(len(differences), 1, *self._brain.shape)
        made[:, 0, self._brain] = self.mean + differences
        return made


def features_of(model: Brain, conditions: Sequence[Mapping[str, Condition]]) -> Tensor:
    """(n, F): numbers as they are and an indicator of each level of words; NaN where one is not known."""
    columns = []
    for variable, code in zip(model.variables, model.codes(conditions).T, strict=True):
        known = code.masked_fill(code == MISSING, torch.nan)
        levels = range(len(variable.levels)) if isinstance(variable, Categorical) else ()
        columns += [(known == level).float() + 0 * known for level in levels] or [known]
    return torch.stack(columns, 1)
