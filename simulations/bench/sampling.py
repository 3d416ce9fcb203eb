"""Sampling speed beside MONAI's latent diffusion: both on one grid, of about equal size, in turn in one process.

MONAI's networks hold the weights they are built with: speed does not depend on them, so nothing is said about quality here.
Absolute times are this machine's; only the ratio travels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from braing3n_core.flow import euler
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.prior import SHIPPED, read_prior
from simulations.baselines.latent_diffusion import LatentDiffusion

Say = Callable[[str], None]
_PERSON = {"age": 60.0}


@dataclass(frozen=True)
class Speed:
    """One sampler: its size, and the median time of a volume."""

    name: str
    parameters: int                                          # of everything that sampling needs
    evaluations: int                                         # of the network, for one volume
    seconds: float


def compare(steps: int, repeats: int, say: Say) -> tuple[Speed, Speed]:
    """The shipped generator and MONAI's latent diffusion, `steps` network evaluations each, one volume at a time, in turn."""
    ours = read_prior(SHIPPED / "tiny.safetensors").eval()
    torch.manual_seed(0)
    theirs, codes = LatentDiffusion(ours.preset.shape, ours.variables).eval(), ours.codes([_PERSON])
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-1, repeats):                          # the first turn warms both up and is not counted
        runs = (lambda seed: _ours(ours, steps, seed), lambda seed: theirs.sample(codes, steps, seed))
        for place, run in enumerate(runs):
            began = perf_counter()
            run(turn % 2**31)
            if turn >= 0:
                times[place].append(perf_counter() - began)
        say(f"sampled {turn + 1} of {repeats} volumes of each")
    used = (_size(ours.generator) + _size(ours.decoder), _size(theirs.unet) + _size(theirs.autoencoder.decoder))
    names = ("braing3n tiny, Euler", "MONAI latent diffusion, DDIM")
    first, second = (
        Speed(name, size, steps, statistics.median(each)) for name, size, each in zip(names, used, times, strict=True)
    )
    return first, second


def _ours(model: Brain, steps: int, seed: int) -> Tensor:
    return generate(model, [_PERSON], seed, steps=steps, guidance=1.0, sampler=euler)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def told(found: tuple[Speed, Speed]) -> list[str]:
    """Two lines and the ratio."""
    lines = [f"{row.name:<32}{row.parameters / 1e6:>6.1f} M weights, {row.evaluations} evaluations" for row in found]
    return [*lines, f"volumes a second, first over second: {ratio(found):.1f}"]


def ratio(found: tuple[Speed, Speed]) -> float:
    """How many volumes the first makes while the second makes one."""
    return found[1].seconds / found[0].seconds


def as_json(found: tuple[Speed, Speed]) -> dict[str, object]:
    """The same for a program."""
    return {"samplers": [asdict(row) for row in found], "ratio": ratio(found)}
