"""Public tensors that take seconds to make, kept in the user's cache folder from one process to the next.

Only what follows from this installation alone is kept: no patient's data, nothing that a plan says. A file is used if it was
made by the same code and libraries and is whole; else, and where nothing can be written, the tensors are made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from braing3n_core.errors import IntegrityError
from braing3n_core.state import load, save


def kept(name: str, made_from: bytes, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` returns. `made_from`: everything it depends on; another value has a file of its own."""
    path = cache_folder() / f"{name}-{hashlib.sha256(made_from).hexdigest()[:16]}.safetensors"
    with contextlib.suppress(IntegrityError):
        tensors, about = load(path)
        if about.get("sha256") == _sum(tensors):
            return tensors
    made = dict(make())
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        save(path, made, {"sha256": _sum(made)})
    return made


def cache_folder() -> Path:
    """Of this user, by the XDG base directory specification; /dev/null/braing3n, in which nothing is, without a home."""
    own = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (own if own.is_absolute() else Path("~/.cache").expanduser()) / "braing3n"
    except RuntimeError:                                     # no home is known
        return Path(os.devnull) / "braing3n"


def _sum(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()
