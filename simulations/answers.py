"""What `braing3n-sim phantom` was asked for, checked, as hospitals with an answer key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from braing3n_core.data.answers import write_hospitals
from braing3n_core.data.contrast import CONTRASTS
from braing3n_core.data.patient import Wishes
from braing3n_core.errors import UsageError
from braing3n_core.models.presets import PRESETS


def write_answered(
    out: Path, patients: int, sites: int, seed: int, modalities: str, visits: int, tumours: float, preset: str,
    labels: Path | None, progress: Callable[[int, int], None] | None,
) -> list[Path]:  # fmt: skip
    """The folders that were made. Raises UsageError for a modality or preset nobody knows."""
    named = tuple(dict.fromkeys(word.strip() for word in modalities.split(",")))
    if unknown := [name for name in named if name not in CONTRASTS]:
        raise UsageError(f"--modalities {unknown[0]}: phantoms have {', '.join(CONTRASTS)}")
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: known are {', '.join(PRESETS)}")
    wishes = Wishes(named, visits, tumours=tumours)
    return write_hospitals(out, PRESETS[preset], patients, sites, seed, wishes, progress, labels)
