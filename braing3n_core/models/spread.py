"""How far apart people of one kind are, beside the public's: a factor along each public direction and one for all else.

Hospitals with one scanner each are nearer to one another than a public that saw many, and real heads differ in ways that
phantoms do not. What is learned from patients is that many factors and no more, so privacy noise falls on few numbers
(docs/adr/0015).
"""

# B people, N tokens, C channels, R public directions

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from braing3n_core.models.blocks import Code
from braing3n_core.models.population import DIRECTIONS, Population

FREEDOM: Final = 4.0                                         # degrees of Student's t: nobody pulls the log of a factor by more
_PASSES: Final = 200


class Spread(nn.Module):
    """Scales each person's distance from the mean of such people. All factors 1 until it is trained, and no person is moved."""

    usual: Tensor                                            # (R + 1,) how far the prior's people lie from that mean

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("usual", torch.ones(DIRECTIONS + 1))
        self.logs = Code(DIRECTIONS + 1)

    def forward(self, population: Population, people: Tensor, middle: Tensor) -> Tensor:
        """(B, N, C) people and (B, N, C) means of such people -> (B, N, C) people."""
        along, rest = _parts(population, people - middle)
        *inside, outside = self.logs.code.exp()
        return middle + population.placed(along * torch.stack(inside)) + rest * outside

    def apart(self, population: Population, gaps: Tensor) -> Tensor:
        """(B, N, C) distances from the mean -> (B, R + 1) in units of the prior's people's."""
        return lengths(population, gaps) / self.usual

    def surprise(self, apart: Tensor) -> Tensor:
        """(B, R + 1) -> (B,) minus the log likelihood, but for a constant, of Student's t with these factors as its scales.

        Its gradient by the log of a factor lies between -FREEDOM and 1 whatever the patient, so clipping it biases little.
        """
        logs = self.logs(torch.zeros_like(apart))
        within = apart.square() * (-2 * logs).exp() / FREEDOM
        return (logs + (FREEDOM + 1) / 2 * within.log1p()).sum(1)


def lengths(population: Population, gaps: Tensor) -> Tensor:
    """(B, N, C) -> (B, R + 1): the coordinate in each public direction, and the root mean square of what is in none."""
    along, rest = _parts(population, gaps)
    return torch.cat([along, rest.square().flatten(1).mean(1, keepdim=True).sqrt()], 1)


def scales(apart: Tensor) -> Tensor:
    """(n, F) -> (F,): where the mean gradient of `Spread.surprise` is zero, so the scales that training would end at."""
    squared = apart.double().square()
    found = squared.mean(0)
    for _ in range(_PASSES):                                 # expectation and maximisation: each pass is nearer
        found = found * ((FREEDOM + 1) * squared / (FREEDOM * found + squared)).mean(0)
    return found.sqrt().to(apart.dtype)


def _parts(population: Population, gaps: Tensor) -> tuple[Tensor, Tensor]:
    along = population.along(gaps)
    return along, gaps - population.placed(along)
