"""What the years do to one person: rectified flow of the CHANGE of latents, given the first visit and the time that passed.

The change is modelled rather than the later scan, so that what makes a person this person need not be generated again: it
is in the latents of the first visit, which come in at every token beside the noisy change.
"""

# B pairs of visits, N tokens, C channels, M variables

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from braing3n_core.models.generator import Flow
from braing3n_core.models.population import Population
from braing3n_core.models.presets import LONGEST_YEARS, Preset
from braing3n_core.plan import Categorical, Continuous

GAP = Continuous(kind="continuous", name="gap", unit="year", low=0.0, high=LONGEST_YEARS)


class Trajectory(Flow):
    """Velocity field of the change: (B, N, C) noisy changes, (B,) times, (B, N, C) first visits, (B, M) codes, (B,) years.

    Changes are in units of `scale`, their spread among public pairs of visits, so that the flow ends near unit variance. The
    codes are those of the first visit. `pace` says how much faster or slower a hospital's people change than the public, in
    proportion to the years; the prior leaves it at zero.
    """

    scale: Tensor                                            # ()

    def __init__(self, preset: Preset, inside: Tensor, variables: Sequence[Continuous | Categorical]) -> None:
        super().__init__(preset, inside, (GAP, *variables), 2 * preset.latent_width, preset.trajectory_depth)
        self.pace = Population(variables, len(inside), preset.latent_width)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, z: Tensor, t: Tensor, first: Tensor, codes: Tensor, years: Tensor) -> Tensor:
        shift = self.shift(codes, years)                     # (B, N, C)
        return self.unmoved(z - (1 - t)[:, None, None] * shift, t, first, codes, years) - shift

    def shift(self, codes: Tensor, years: Tensor) -> Tensor:
        """(B, M) codes, (B,) years -> (B, N, C): how much more the pace says such people change in them."""
        return years[:, None, None] / LONGEST_YEARS * self.pace(codes)

    def unmoved(self, z: Tensor, t: Tensor, first: Tensor, codes: Tensor, years: Tensor) -> Tensor:
        """The velocity without the pace."""
        passed = years[:, None] / LONGEST_YEARS              # (B, 1)
        return self.velocity(torch.cat([z, first], 2), t, torch.cat([passed, codes], 1))
