"""Where a hospital's people lie beside the public's: a shift of the latents that depends on the conditions, in few numbers.

The directions are public: what age, sex and disease do to latents, and how scanners differ, as phantoms show it. What is
learned from patients is only how far along each direction each condition moves, so privacy noise falls on few weights
(its size grows with the square root of their number; docs/adr/0004).
"""

# B people, M variables, F features, R directions, N tokens, C channels

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braing3n_core.plan import Categorical, Continuous

MISSING = -1.0                                               # code of a condition that is not given
DIRECTIONS = 16                                              # R; they hold 97 % of how the demo's hospitals differ on average


class Population(nn.Module):
    """(B, M) codes -> (B, N, C) shift. Zero until it is trained, so the public prior is what it is without it.

    A condition's effect has two sets of weights: one where every measured variable (such as ventricle volume) is given,
    one where it is not. What age says about anatomy is another thing once the anatomy itself is asked for.
    """

    basis: Tensor                                            # (R, N, C) orthogonal directions, each of mean square 1
    whiten: Tensor                                           # (F, F): makes public features uncorrelated, of unit variance

    def __init__(self, variables: Sequence[Continuous | Categorical], tokens: int, channels: int) -> None:
        super().__init__()
        self.levels = [0 if isinstance(v, Continuous) else len(v.levels) for v in variables]
        self.measured = [column for column, v in enumerate(variables) if v.source == "measured"]
        count = 2 * (1 + sum(max(levels - 1, 0) if levels else 1 for levels in self.levels))
        self.register_buffer("basis", torch.zeros(DIRECTIONS, tokens, channels))
        self.register_buffer("whiten", torch.eye(count))
        self.respond = nn.Linear(count, DIRECTIONS, bias=False)
        nn.init.zeros_(self.respond.weight)

    def features(self, codes: Tensor) -> Tensor:
        """(B, M) codes -> (B, F): one, each continuous place in [-1, 1], each level but the first; zero where missing.

        The first half is for people whose measured variables are all given, the second for the others.
        """
        parts = [torch.ones_like(codes[:, :1])]
        for column, levels in enumerate(self.levels):
            code = codes[:, column : column + 1]
            if levels:
                parts += [(code == level).to(codes.dtype) for level in range(1, levels)]
            else:
                parts.append((2 * code - 1) * (code != MISSING))
        each = torch.cat(parts, 1)
        given = (codes[:, self.measured] != MISSING).all(1, keepdim=True)
        return torch.cat([each * given, each * ~given], 1)

    def forward(self, codes: Tensor) -> Tensor:
        distance: Tensor = self.respond(self.features(codes) @ self.whiten)                    # (B, R)
        return self.placed(distance)

    def along(self, latents: Tensor) -> Tensor:
        """(B, N, C) -> (B, R) coordinates in the public directions."""
        basis = self.basis.flatten(1)
        coordinates: Tensor = latents.flatten(1) @ basis.T / basis.shape[1]
        return coordinates

    def placed(self, coordinates: Tensor) -> Tensor:
        """(B, R) coordinates -> (B, N, C)."""
        return torch.einsum("br,rnc->bnc", coordinates, self.basis)
