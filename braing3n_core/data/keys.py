"""The name of a prepared scan: everything that it follows from. Light, so that a second run imports nothing heavy.

The versions of the programs are here and not beside them for that reason: raise one when its results may change.
"""

from __future__ import annotations

from pathlib import Path

from braing3n_core.data.cache import key_of
from braing3n_core.models.presets import Preset

VERSIONS = {"preprocess": 4, "morphometry": 1, "tissues": 2}


def key_of_scan(
    content: str, path: Path, preset: Preset, registration: str, modality: str, n4: bool, mask_command: str
) -> str:
    """`content` is the file's digest; its ending counts, because it decides how the file is read."""
    parts = (preset.shape, preset.spacing_mm, registration, modality, n4, mask_command)
    return key_of(content, path.suffix, sorted(VERSIONS.items()), *parts)
