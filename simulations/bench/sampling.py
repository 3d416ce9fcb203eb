"""Sampling speed beside MONAI's latent diffusion: both on one grid, of about equal size, in turn in one process.

MONAI's networks hold the weights they are built with: speed does not depend on them, so nothing is said about quality here.
Absolute times are this machine's; only ratios travel: of one to the other, and of each to its floor (floor.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from time import process_time

import torch
from torch import Tensor, nn

from braing3n_core.flow import euler
from braing3n_core.generate import generate
from braing3n_core.prior import SHIPPED, read_prior
from simulations.baselines.latent_diffusion import LatentDiffusion
from simulations.bench.floor import FLOAT, Machine, Work, flops

Say = Callable[[str], None]
_PERSON = {"age": 60.0}


@dataclass(frozen=True)
class Speed:
    """One sampler: its size, and the median time of a volume, in seconds of all its threads."""

    name: str
    parameters: int                                          # of everything that sampling needs
    evaluations: int                                         # of the network, for one volume
    seconds: float                                           # of the processor
    work: Work                                               # of one volume
    least: float                                             # seconds that this machine needs for it

    @property
    def floors(self) -> float:
        """How many times the floor a volume takes."""
        return self.seconds / self.least


def compare(steps: int, repeats: int, threads: int, say: Say) -> tuple[Speed, Speed]:
    """The shipped generator and MONAI's latent diffusion, `steps` network evaluations each, one volume at a time, in turn."""
    torch.set_num_threads(threads)
    ours = read_prior(SHIPPED / "tiny.safetensors").eval()
    torch.manual_seed(0)
    theirs, codes = LatentDiffusion(ours.preset.shape, ours.variables).eval(), ours.codes([_PERSON])
    runs: tuple[Callable[[int], Tensor], ...] = (
        lambda seed: generate(ours, [_PERSON], seed, steps=steps, guidance=1.0, sampler=euler),
        lambda seed: theirs.sample(codes, steps, seed),
    )
    times: tuple[list[float], list[float]] = ([], [])
    machine = Machine.measured(threads)
    say(machine.told())
    for turn in range(-1, repeats):                          # the first turn warms both up and is not counted
        for place, run in enumerate(runs):
            began = process_time()
            run(turn % 2**31)
            if turn >= 0:
                times[place].append(process_time() - began)
        say(f"sampled {turn + 1} of {repeats} volumes of each")
    used = ((ours.generator, ours.decoder), (theirs.unet, theirs.autoencoder.decoder))
    names = ("braing3n tiny, Euler", "MONAI latent diffusion, DDIM")
    first, second = (
        _speed(name, networks, steps, statistics.median(each), flops(partial(run, 0)), machine)
        for name, networks, each, run in zip(names, used, times, runs, strict=True)
    )
    return first, second


def _speed(
    name: str, networks: tuple[nn.Module, nn.Module], steps: int, seconds: float, arithmetic: float, machine: Machine
) -> Speed:
    field, decoder = map(_size, networks)
    work = Work(arithmetic, FLOAT * (steps * field + decoder))       # every weight is read once an evaluation
    return Speed(name, field + decoder, steps, seconds, work, machine.least(work))


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def told(found: tuple[Speed, Speed]) -> list[str]:
    """Two lines and the ratio."""
    lines = [
        f"{row.name:<32}{row.parameters / 1e6:>6.1f} M weights, {row.evaluations} evaluations, "
        f"{row.work.flops / 1e9:.1f} GFLOP, {row.floors:.1f} times the floor"
        for row in found
    ]
    return [*lines, f"volumes in the same processor time, first over second: {ratio(found):.1f}"]


def ratio(found: tuple[Speed, Speed]) -> float:
    """How many volumes the first makes while the second makes one."""
    return found[1].seconds / found[0].seconds


def as_json(found: tuple[Speed, Speed]) -> dict[str, object]:
    """The same for a program."""
    return {"samplers": [{**asdict(row), "floors": row.floors} for row in found], "ratio": ratio(found)}
