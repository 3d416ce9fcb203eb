"""How people of one kind are spread along the public directions, beside the public's: where they lie, and how far apart.

Hospitals with one scanner each are nearer to one another than a public that saw many. Where they lie is known already from
the mean, but with the noise of thousands of weights; along these few directions it is said again, with the noise of few
(docs/adr/0015).
"""

# B people, N tokens, C channels, R public directions

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from braing3n_core.models.blocks import Code
from braing3n_core.models.population import DIRECTIONS, Population

FREEDOM: Final = 4.0                                         # degrees of Student's t: the fewer, the less one patient matters
_PASSES: Final = 300


class Spread(nn.Module):
    """Moves and scales people's coordinates in the public directions. Nobody is moved until it is trained."""

    centre: Tensor                                           # (R,) where the prior's people lie, from the mean of such people
    usual: Tensor                                            # (R,) how far apart they are

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(DIRECTIONS))
        self.register_buffer("usual", torch.ones(DIRECTIONS))
        self.moves = Code(DIRECTIONS)                        # where hospitals' people lie, in how far apart these are
        self.logs = Code(DIRECTIONS)                         # of how far apart these are, in how far the prior's people are

    def forward(self, population: Population, people: Tensor, middle: Tensor) -> Tensor:
        """(B, N, C) people and (B, N, C) means of such people -> (B, N, C) people."""
        now = population.along(people - middle)
        then = self.centre + self.usual * self.logs.code.exp() * ((now - self.centre) / self.usual + self.moves.code)
        return people + population.placed(then - now)

    def apart(self, population: Population, gaps: Tensor) -> Tensor:
        """(B, N, C) distances from the mean -> (B, R) coordinates in which the prior's people have location 0 and scale 1."""
        return (population.along(gaps) - self.centre) / self.usual

    def surprise(self, apart: Tensor) -> Tensor:
        """(B, R) -> (B,) minus the log likelihood, but for a constant, of Student's t with these locations and scales.

        A patient's gradient by each number is bounded wherever the patient is, so clipping it biases little.
        """
        nothing = torch.zeros_like(apart)
        logs = self.logs(nothing)
        from_there = apart * (-logs).exp() - self.moves(nothing)
        return (logs + (FREEDOM + 1) / 2 * (from_there.square() / FREEDOM).log1p()).sum(1)

    @torch.no_grad()
    def fit(self, apart: Tensor) -> None:
        """Set the numbers to where training on (n, R) rows would end, without clip or noise."""
        location, scale = student(apart)
        self.logs.code.copy_(scale.log())
        self.moves.code.copy_(location / scale)


def student(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, R) -> (R,) locations and (R,) scales of Student's t of FREEDOM degrees that make the rows most likely."""
    values = rows.double()
    location, square = values.mean(0), values.var(0, correction=0)
    for _ in range(_PASSES):                                 # expectation and maximisation: each pass is nearer
        weights = (FREEDOM + 1) / (FREEDOM + (values - location).square() / square)
        location = (weights * values).sum(0) / weights.sum(0)
        square = (weights * (values - location).square()).mean(0)
    return location.to(rows.dtype), square.sqrt().to(rows.dtype)
