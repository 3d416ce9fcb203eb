"""What the copy detector sees on public brains: pairs of different people, and copies planted on purpose. No patient is used.

A threshold that came from patients (say, a percentile of their distances) would make every vote depend on every patient.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.data.contrast import WHITE
from braing3n_core.data.phantom import phantoms
from braing3n_core.likeness import likeness
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.plan import T1W, Hospital

FILE = Path(__file__).parent / "likeness_reference.json"
KINDS = ("identical", "shifted", "noisy", "deformed")
SHIFT_VOXELS = 1                                             # along every axis, either way
NOISE = 0.05                                                 # standard deviation where white matter is 0.85, as in T1w
BEND_MM = 4.0                                                # the farthest a voxel moves
_AT_ONCE = 8
_BEND_NODES = 6                                              # of the smooth field along each axis
BINS = tuple(round(0.2 + 0.02 * i, 2) for i in range(41))    # edges, 0.2 to 1


@dataclass(frozen=True)
class Reference:
    """Similarities of public brains. `pairs` counts pairs of different people per bin of BINS; `copies` likewise, by kind."""

    threshold: float
    false_alarm: float                                       # part of the pairs above the threshold
    people: int                                              # pairs are people x others
    others: int
    caught: dict[str, float]                                 # kind -> part of the planted copies above the threshold
    pairs: tuple[int, ...]
    copies: dict[str, tuple[int, ...]]

    def as_json(self) -> bytes:
        """The file. tests/golden/likeness_reference.py writes it."""
        return (json.dumps(self.__dict__, indent=1) + "\n").encode()


@lru_cache(maxsize=1)
def shipped() -> Reference:
    """What was measured once and ships with the package."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    copies = {kind: tuple(counts) for kind, counts in found["copies"].items()}
    return Reference(**found | {"pairs": tuple(found["pairs"]), "copies": copies})


def measured(threshold: float, people: int, others: int, seed: int) -> Reference:
    """Measure `people` against `others` phantoms of another hospital, and against planted copies of themselves."""
    preset, generator = PRESETS["tiny"], torch.Generator().manual_seed(seed)
    ours = _people(preset, people, seed, Hospital(name="public", ageing=0.1))
    theirs = _people(preset, others, seed + 1, Hospital(name="elsewhere", contrast=0.05, bias=0.05))
    pairs = likeness(ours, theirs, preset).ravel()
    scores = {kind: own_likeness(ours, planted(ours, kind, preset, generator), preset) for kind in KINDS}
    return Reference(
        threshold=threshold,
        false_alarm=float((pairs > threshold).mean()),
        people=people,
        others=others,
        caught={kind: float((found > threshold).mean()) for kind, found in scores.items()},
        pairs=_counts(pairs),
        copies={kind: _counts(found) for kind, found in scores.items()},
    )


def planted(volumes: Tensor, kind: str, preset: Preset, generator: torch.Generator, modality: str = T1W) -> Tensor:
    """Copies (n, 1, D, H, W) of `volumes`, one each, as somebody might hide them; voxels without signal stay without."""
    match kind:
        case "identical":
            return volumes.clone()
        case "shifted":
            moves = torch.randint(0, 2, (len(volumes), 3), generator=generator) * 2 - 1
            moved = zip(volumes, (SHIFT_VOXELS * moves).tolist(), strict=True)
            return torch.stack([torch.roll(volume, move, (1, 2, 3)) for volume, move in moved])
        case "noisy":
            noise = NOISE * WHITE[modality] / WHITE[T1W]
            return (volumes + noise * torch.randn(volumes.shape, generator=generator) * (volumes > 0)).clamp(min=0)
        case "deformed":
            return torch.stack([_bent(volume, preset, generator) for volume in volumes])
        case _:
            raise ValueError(f"{kind!r} is no way to hide a copy; choose from {', '.join(KINDS)}")


def own_likeness(volumes: Tensor, copies: Tensor, preset: Preset) -> np.ndarray:
    """(n,) similarity of each volume to its own copy."""
    parts = zip(volumes.split(_AT_ONCE), copies.split(_AT_ONCE), strict=True)
    return np.concatenate([np.diagonal(likeness(a, b, preset)) for a, b in parts])


def _bent(volume: Tensor, preset: Preset, generator: torch.Generator) -> Tensor:
    """(1, D, H, W) moved by a smooth random field whose largest step is BEND_MM."""
    nodes = torch.randn(1, 3, *[_BEND_NODES] * 3, generator=generator)
    field = F.interpolate(nodes, size=preset.shape, mode="trilinear", align_corners=True)[0]                  # (3, D, H, W)
    field = BEND_MM * field / field.norm(dim=0).max()
    half = torch.tensor([(n - 1) * mm / 2 for n, mm in zip(preset.shape, preset.spacing_mm, strict=True)]).view(3, 1, 1, 1)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in preset.shape], indexing="ij")
    places = (torch.stack(axes) + field / half).flip(0).permute(1, 2, 3, 0)[None]     # grid_sample wants the last axis first
    return F.grid_sample(volume[None], places, mode="bilinear", padding_mode="zeros", align_corners=True)[0]


def _people(preset: Preset, count: int, seed: int, hospital: Hospital) -> Tensor:
    return torch.stack([volume for volume, _ in phantoms(preset, count, seed, hospital)])


def _counts(values: np.ndarray) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(values, BINS[0], BINS[-1]), BINS)
    return tuple(int(count) for count in counts)
