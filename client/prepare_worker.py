"""The process that prepares scans. One scan's crash, whatever the reason, ends this process and nothing else."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch

from braing3n_core.data.cache import Cache
from braing3n_core.data.prepared import compute_and_keep
from braing3n_core.data.preprocess import Method
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS
from client.scan_page import write_excluded, write_page
from client.workers import serve


def answer(task: dict[str, Any]) -> dict[str, str]:
    """Prepare one scan and write its page; the page comes first, so an entry of the cache means that there is one."""
    path, page = Path(task["path"]), Path(task["page"])
    method = Method(PRESETS[task["preset"]], "affine", task["modality"], task["n4"], task["mask_command"])
    cache = Cache(Path(task["cache"]))
    try:
        compute_and_keep(path, method, cache, task["key"], lambda computed: write_page(page, task["file"], method, computed))
    except DataRefused as error:
        write_excluded(page, task["file"], str(error), path)
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 - the operator reads which scan it was; the others go on
        return {"failed": type(error).__name__, "trace": traceback.format_exc()}
    return {}


def main() -> NoReturn:
    """Answer tasks until nobody asks."""
    torch.set_num_threads(1)                                 # one scan a core: the pool has a process for each
    serve(answer)


if __name__ == "__main__":
    main()
