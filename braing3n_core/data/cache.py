"""What was computed once, named by the content it came from. Knows files and digests, not scans.

An entry is `<key>.safetensors`, the volume, and `<key>.json`, the record. The record is written last and holds a digest of
itself and of the volume, so a record that can be read means a whole entry, whenever the program was stopped.

`index.json` spares reading files that did not change: it holds size, times of change, inode and digest of every file seen. It
trusts the operating system to move a file's time of change (ctime, which no program can set back) when its content changes,
and trusts no file that changed within two seconds of being read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically

_RACE_NS = 2 * 10**9                                         # coarser than the clock of any file system that has a ctime
Record = Mapping[str, Any]                                   # JSON


class Cache:
    """A folder of entries, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._index = _read(folder / "index.json") or {}
        self._changed = False

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, from the index if nothing about the file changed. Raises DataRefused if it cannot be read."""
        try:
            about = path.stat()
            mark = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
            known = self._index.get(str(path.absolute()))
            if isinstance(known, list) and known[:4] == mark:
                return str(known[4])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataRefused(f"{path.name} cannot be read ({error.strerror}); check its permissions and run again") from error
        if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _RACE_NS:
            self._index[str(path.absolute())] = [*mark, digest]
            self._changed = True
        return digest

    def close(self) -> None:
        """Keep the index for the next run."""
        if self._changed:
            _write(self._folder / "index.json", self._index)
            self._changed = False

    def volume(self, key: str) -> Path:
        """Where an entry's volume lies."""
        return self._folder / f"{key}.safetensors"

    def record(self, key: str) -> Record | None:
        """The record of a whole entry, None if there is none or it was changed. The volume's own digest is not checked here."""
        found = _read(self._folder / f"{key}.json")
        if found is None or ("refused" not in found and _size(self.volume(key)) != found.get("volume_bytes")):
            return None
        return found

    def keep(self, key: str, record: Record) -> None:
        """Make an entry whole: its volume, if it has one, must lie there."""
        volume = {} if "refused" in record else {"volume_bytes": _size(self.volume(key))}
        _write(self._folder / f"{key}.json", {**record, **volume})


def key_of(*parts: object) -> str:
    """A name for everything that a result follows from."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _size(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None


def _write(path: Path, value: Record) -> None:
    text = json.dumps(value, sort_keys=True)
    write_atomically(path, json.dumps({"sum": hashlib.sha256(text.encode()).hexdigest(), "value": json.loads(text)}).encode())


def _read(path: Path) -> dict[str, Any] | None:
    """What `_write` wrote, None if it is absent, cut short or changed."""
    try:
        content = json.loads(path.read_bytes())
        value, said = content["value"], content["sum"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    text = json.dumps(value, sort_keys=True)
    return value if isinstance(value, dict) and hashlib.sha256(text.encode()).hexdigest() == said else None
