"""How far generated people lie from unseen ones, in the prior's own features and in MedicalNet's, beside what real ones have.

An encoder that was trained on phantoms may be blind where a generator on its latents is wrong; a network that was trained on
other people's scans is a second opinion.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.embedding import embed
from braing3n_core.files import write_atomically
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from simulations.medicalnet import features, medicalnet
from simulations.tstr import of_phantoms

Say = Callable[[str], None]
Features = Callable[[Tensor], np.ndarray]                    # (n, 1, D, H, W) -> (n, f)
_STATISTICS = {"KID": metrics.kid, "Frechet": metrics.frechet}
_SEED = 20_260_004                                           # of generated people


@dataclass(frozen=True)
class Distance:
    """One statistic in one space: `floor` is what two halves of the real people have, the interval is 95 % of half samples."""

    space: str
    statistic: str
    value: float
    low: float
    high: float
    floor: float
    rows: int                                                # people of each kind in a half sample


def distances(model: Brain, people: int, steps: int, weights: Path | None, say: Say) -> list[Distance]:
    """Of people generated with the conditions of as many unseen phantoms; with `weights`, in MedicalNet's space too."""
    spaces: dict[str, Features] = {"encoder": lambda volumes: embed(model, volumes).double().numpy()}
    if weights is not None:
        network = medicalnet(weights)
        spaces["MedicalNet"] = lambda volumes: features(network, volumes)
    say(f"{people} phantoms, and {people} generated people of their conditions")
    _, real = of_phantoms(model, 2, people)
    made = generate(model, real.conditions, _SEED, steps=steps, guidance=1.0)
    found = []
    for space, read in spaces.items():
        say(f"features: {space}")
        truth, theirs = read(real.volumes), read(made)
        for name, statistic in _STATISTICS.items():
            one = metrics.against_real(statistic, truth, theirs, seed=1)
            found.append(Distance(space, name, one.value, one.low, one.high, one.floor, one.rows))
    return found


def told(found: Sequence[Distance]) -> list[str]:
    """The table for a person."""
    heads = f"{'space':<12}{'statistic':<11}{'generated':>11}  {'95 %':<22}{'two halves of the real':>24}"
    lines = [
        f"{row.space:<12}{row.statistic:<11}{row.value:>11.4g}  {f'{row.low:.4g} to {row.high:.4g}':<22}{row.floor:>24.4g}"
        for row in found
    ]
    rows = f"{found[0].rows} people of each kind in a half sample: Frechet is mostly bias there, hold it to the last column"
    return [heads, *lines, rows]


def write(found: Sequence[Distance], out: Path) -> None:
    """The same for a program."""
    write_atomically(out, (json.dumps([asdict(row) for row in found], indent=1) + "\n").encode())
