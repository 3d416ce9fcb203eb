"""Candidates of a release on their way to the sites: a folder of parts, each there whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n_core.errors import IntegrityError
from braing3n_core.state import load, save

PART = 64                                                    # candidates in one file


@dataclass(frozen=True, eq=False)
class Candidates:
    """All parts together."""

    plan: str                                                # digest
    threshold: float                                         # of braing3n_core.likeness, from the policy
    volumes: Tensor                                          # (c, 1, D, H, W)

    @property
    def digest(self) -> str:
        """What a vote names."""
        return ballot_digest(self.volumes, self.threshold)


def ballot_digest(volumes: Tensor, threshold: float) -> str:
    """SHA-256 over the candidates as float32 and the threshold, hex."""
    values = np.ascontiguousarray(volumes.numpy(), "<f4")
    return hashlib.sha256(f"{threshold!r}/{values.shape}".encode() + values.tobytes()).hexdigest()


def part_path(folder: Path, first: int) -> Path:
    """Where the part that begins with candidate `first` lies."""
    return folder / f"part-{first:06d}.safetensors"


def write_part(folder: Path, plan: str, threshold: float, first: int, total: int, volumes: Tensor) -> None:
    """Put one part on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"plan": plan, "threshold": repr(threshold), "first": str(first), "total": str(total)}
    save(part_path(folder, first), {"volumes": volumes}, about)


def read_candidates(folder: Path) -> Candidates:
    """Every part, in order. Raises IntegrityError if one is missing, cut short, or of another plan."""
    volumes: list[Tensor] = []
    plan, threshold, total = "", 0.0, -1
    for path in sorted(folder.glob("part-*.safetensors")):
        tensors, about = load(path)
        try:
            mine = about["plan"], float(about["threshold"]), int(about["total"])
            first, part = int(about["first"]), tensors["volumes"]
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"{path.name} holds no candidates; get the folder again") from error
        plan, threshold, total = mine if not volumes else (plan, threshold, total)
        if not (mine == (plan, threshold, total) and first == sum(map(len, volumes))):
            raise IntegrityError(f"{path.name} does not follow the part before it; get the folder again")
        volumes.append(part)
    if not (volumes and sum(map(len, volumes)) == total):
        raise IntegrityError(f"{folder.name} does not hold all its candidates; make or get the missing parts")
    return Candidates(plan, threshold, torch.cat(volumes))
