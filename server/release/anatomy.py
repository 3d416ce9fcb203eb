"""Whether one synthetic volume can be a brain: its volumes, its edges, being in one piece. Only synthetic volumes come here.

Tissues and ventricles are measured on T1w alone, whose levels the measure knows. On another modality the brain is what is
bright, its holes filled: on phantoms the same as on their T1w (FLAIR, 40 people, r 1.00).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import brain_mask_of, signal_outside
from braing3n_core.metrics.images import BRAIN_THRESHOLD
from braing3n_core.models.brain import where_brain_is
from braing3n_core.models.presets import Preset
from braing3n_core.morphometry import measure
from braing3n_core.plan import T1W
from server.release.policy import Anatomy

_around = lru_cache(maxsize=4)(where_brain_is)              # the template's brain and a voxel around it, first
_JUDGED: Mapping[str, tuple[str, ...]] = {T1W: ("brain_ml", "ventricles_ml", "grey_share", "white_share")}
_OF_ANY = ("brain_ml",)                                      # of a modality that tells no tissues apart


@dataclass(frozen=True)
class Findings:
    """One volume. NaN: it could not be measured, and passes no rule of its modality."""

    brain_ml: float
    ventricles_ml: float
    grey_share: float                                        # of the brain
    white_share: float
    outside: float                                           # part of the signal outside the template's widened brain
    fragments: float                                         # part of the bright voxels outside the largest piece
    modality: str = T1W


def examine(volume: Tensor, preset: Preset, modality: str = T1W) -> Findings:
    """What is found on one volume (1, D, H, W). Raises DataRefused for values that are not finite: nothing is said of them."""
    public = template(preset)
    bright, piece = (volume.reshape(preset.shape) > BRAIN_THRESHOLD), brain_mask_of(volume)
    total = int(bright.sum())
    fragments = int((bright & ~piece).sum()) / total if total else math.nan
    outside = signal_outside(volume, _around(preset)[0])
    if modality != T1W:
        brain = float(piece.sum()) * math.prod(preset.spacing_mm) / 1000 or math.nan
        return Findings(brain, math.nan, math.nan, math.nan, outside, fragments, modality)
    try:
        found = measure(volume, public, preset.spacing_mm)
    except DataRefused:
        return Findings(math.nan, math.nan, math.nan, math.nan, outside, fragments)
    brain = found.brain_ml if found.brain_ml > 0 else math.nan
    return Findings(brain, found.ventricles_ml, found.gm_ml / brain, found.wm_ml / brain, outside, fragments)


def implausible(found: Findings, rules: Anatomy) -> str | None:
    """The first rule that `found` breaks, in words with its number; None if it can be a brain."""
    of = "" if found.modality == T1W else f"{found.modality}: "
    for name in _JUDGED.get(found.modality, _OF_ANY):
        (low, high), value = getattr(rules, name), getattr(found, name)
        if not low <= value <= high:
            return f"{of}{name} is {value:.3g}, allowed {low:g} to {high:g}"
    for name in ("outside", "fragments"):
        most, value = getattr(rules, f"most_{name}"), getattr(found, name)
        if not value <= most:
            return f"{of}{name} is {value:.3g}, allowed at most {most:g}"
    return None
