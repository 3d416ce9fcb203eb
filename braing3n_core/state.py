"""Tensors as one flat array for the wire, and as safetensors on disk. The only file that knows safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from braing3n_core.errors import IntegrityError, ReplyRefused
from braing3n_core.files import write_atomically


def flatten(tensors: Mapping[str, Tensor]) -> np.ndarray:
    """All tensors as one float32 array (n,), in the order of their names. Inverse: unflatten."""
    parts = [tensors[name].detach().float().reshape(-1).numpy() for name in sorted(tensors)]
    return np.concatenate([*parts, np.empty(0, np.float32)])


def unflatten(values: np.ndarray, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(n,) -> tensors with the names, shapes and dtypes of `like`. Raises ReplyRefused on another length or a NaN."""
    expected = sum(tensor.numel() for tensor in like.values())
    if not (values.ndim == 1 and len(values) == expected):
        raise ReplyRefused(f"an array of shape {values.shape} came where ({expected},) belongs; the sender has another model")
    if not np.isfinite(values).all():
        raise ReplyRefused("the array holds NaN or infinite numbers; nothing of it was used")
    tensors, start = {}, 0
    for name in sorted(like):
        end = start + like[name].numel()
        piece = torch.from_numpy(np.array(values[start:end], np.float32))
        tensors[name], start = piece.reshape(like[name].shape).to(like[name].dtype), end
    return {name: tensors[name] for name in like}


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all."""
    write_atomically(path, packed(tensors, metadata))


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as the content of a safetensors file."""
    return to_bytes({name: t.detach().contiguous() for name, t in tensors.items()}, dict(metadata or {}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises IntegrityError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path.name} is not a whole safetensors file ({error}); restore it or make it again") from error
