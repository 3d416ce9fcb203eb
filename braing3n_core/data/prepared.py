"""One scan, prepared and measured once: what training and `braing3n-site prepare` share, and what the cache keeps of it.

A record holds what was measured, or why the scan was refused; a refusal is remembered as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braing3n_core import morphometry, state, tissues
from braing3n_core.data import preprocess
from braing3n_core.data.cache import Cache, Record
from braing3n_core.data.keys import key_of_scan
from braing3n_core.data.preprocess import Method, Placed, on_grid, volume_of
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused, IntegrityError
from braing3n_core.metrics import dice

__all__ = ["Computed", "compute", "compute_and_keep", "key_for", "load"]

_BACKGROUND = 0.1                                            # of the bright voxels: registration draws the line there as well


@dataclass(frozen=True)
class Computed:
    """A scan on the grid with its record, and what it was made from."""

    volume: Tensor                                           # (1, D, H, W)
    placed: Placed
    record: Record


def key_for(content: str, path: Path, method: Method) -> str:
    """The cache's name for a file of this content, prepared by this method."""
    return key_of_scan(content, path, method.preset, method.registration, method.modality, method.n4, method.mask_command)


def load(path: Path, method: Method, cache: Cache) -> tuple[Tensor, Record]:
    """Volume and record, from the cache if they are there whole. Raises DataRefused if the scan cannot be used."""
    key = key_for(cache.digest(path), path, method)
    record = cache.record(key)
    volume = None if record is None or "refused" in record else _kept(cache.volume(key), record)
    if record is None or ("refused" not in record and volume is None):
        computed = compute_and_keep(path, method, cache, key)
        return computed.volume, computed.record
    if volume is None:
        raise DataRefused(str(record["refused"]))
    return volume, record


def compute_and_keep(
    path: Path, method: Method, cache: Cache, key: str, first: Callable[[Computed], None] | None = None
) -> Computed:
    """`compute`, kept in the cache. Raises DataRefused, and keeps the refusal, if the scan cannot be used.

    `first` sees the result, with the scanner's volumes, before it is kept: what it writes is there whenever they are.
    """
    try:
        computed = compute(path, method, in_scanner=first is not None)
    except DataRefused as error:
        cache.keep(key, {"refused": str(error)})
        raise
    if first:
        first(computed)
    state.save(cache.volume(key), {"volume": computed.volume})
    cache.keep(key, computed.record)
    return computed


def compute(path: Path, method: Method, *, in_scanner: bool) -> Computed:
    """Read, place, scale and measure one scan; `in_scanner`: also its volumes in the scanner's space, which training needs not.

    Raises DataRefused if it cannot be used.
    """
    placed = preprocess.place(path, method)
    volume = volume_of(placed, method)
    public = template(method.preset)
    like_t1 = method.modality in ("T1w", "T1ce")
    measured = asdict(morphometry.measure(volume, public, method.preset.spacing_mm)) if like_t1 else {}
    record: dict[str, Any] = {
        "measured": measured,                                # T1w, T1ce: ml of template space, what training conditions on
        "stripped": placed.stripped,
        "size": placed.size,
        "sum": _sum(volume),
    }
    return Computed(volume, placed, record | (_in_scanner(placed, method) if in_scanner else {}))


def _in_scanner(placed: Placed, method: Method) -> dict[str, Any]:
    """Volumes in ml of the scanner's space, and how well the brain lies on the template's."""
    seen = np.asarray(on_grid(placed.array, placed.affine, tissues.GRID), np.float32)       # not cut to the template's brain
    return {
        "volumes": asdict(tissues.volumes(seen, method.modality, placed.size)),
        "overlap": dice(_bright(seen), template(tissues.GRID).mask),
    }


def _bright(values: np.ndarray) -> Tensor:
    """(D, H, W) bool: what is not background."""
    return torch.from_numpy(values > _BACKGROUND * np.percentile(values, 99))


def _kept(path: Path, record: Record) -> Tensor | None:
    """The volume of an entry, None if it was damaged: then it is computed again."""
    try:
        volume = state.load(path)[0]["volume"]
    except (IntegrityError, KeyError):
        return None
    return volume if _sum(volume) == record.get("sum") else None


def _sum(volume: Tensor) -> str:
    return hashlib.sha256(volume.contiguous().numpy().tobytes()).hexdigest()
