"""`braing3n-sim bench prepare`: where the time of a hospital's first `prepare` goes, scan by scan, in one process and thread.

The floor is to unpack the file and do nothing with it.
"""

from __future__ import annotations

import gzip
import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from braing3n_core.data.cache import Cache
from braing3n_core.data.prepared import compute, compute_and_keep, key_for, load
from braing3n_core.data.preprocess import Method, place, volume_of
from braing3n_core.data.scans import ScanFile, find_bids
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.flower_process import Say
from braing3n_core.models.presets import Preset

_UNPACK = "unpack the file (floor)"
_READ, _PLACE, _GRID = "read and check", "read, find brain and place", "onto the grid, alone"
_TRAINING, _PREPARE, _CACHED = "all that training needs", "all that prepare does", "from the cache"
_STEPS = (_UNPACK, _READ, _PLACE, _GRID, _TRAINING, _PREPARE, _CACHED)


@dataclass(frozen=True)
class Row:
    """One step over all scans; what it is part of has a row of its own."""

    step: str
    scans: int
    seconds: float                                           # of the processor, median
    slowest: float
    floors: float                                            # median of the ratio to unpacking the same file


@dataclass(frozen=True)
class Found:
    """What was measured, and the most memory that the process held."""

    rows: tuple[Row, ...]
    refused: int                                             # scans left out of every row
    megabytes: float                                         # 10^6 bytes


def bench(folder: Path, preset: Preset, most: int, say: Say) -> Found:
    """Prepare up to `most` scans of a BIDS folder. Raises DataRefused if none can be used."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _bench(find_bids(folder).scans[:most], preset, say)
    finally:
        torch.set_num_threads(threads)


def told(found: Found) -> Iterator[str]:
    """The table for people."""
    yield f"{'step':<32}{'scans':>6}{'s a scan':>10}{'slowest':>9}{'times floor':>13}"
    for row in found.rows:
        yield f"{row.step:<32}{row.scans:6d}{row.seconds:10.2f}{row.slowest:9.2f}{row.floors:13.1f}"
    yield f"{found.refused} scans refused; at most {found.megabytes:.0f} MB held"


def as_json(found: Found) -> str:
    """The table for programs."""
    return json.dumps(asdict(found), indent=1)


def _bench(scans: Sequence[ScanFile], preset: Preset, say: Say) -> Found:
    spent: dict[str, list[float]] = defaultdict(list)
    refused = 0
    with tempfile.TemporaryDirectory() as place_of_cache:
        cache = Cache(Path(place_of_cache))
        try:
            for number, scan in enumerate([*scans[:1], *scans]):             # what is loaded once counts for no scan
                say(f"scan {number} of {len(scans)}: {scan.file}" if number else "loading what every scan needs")
                try:
                    taken = _steps(scan, Method(preset, modality=scan.modality), cache)
                except DataRefused as error:
                    refused += number > 0
                    say(f"left out: {error}")
                    continue
                for step, seconds in taken.items() if number else ():
                    spent[step].append(seconds)
        finally:
            cache.close()
    if not spent:
        raise DataRefused("no scan of the folder could be prepared; name a BIDS folder with T1w scans")
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return Found(tuple(_row(step, spent[step], spent[_UNPACK]) for step in _STEPS), refused, held)


def _steps(scan: ScanFile, method: Method, cache: Cache) -> dict[str, float]:
    """Seconds of each step on one scan."""
    spent: dict[str, float] = {}
    with _timed(spent, _READ):
        read_volume(scan.path)                               # refuses a damaged file
    with _timed(spent, _UNPACK):
        _unpack(scan.path)
    with _timed(spent, _PLACE):
        placed = place(scan.path, method)
    with _timed(spent, _GRID):
        volume_of(placed, method)
    with _timed(spent, _TRAINING):
        compute(scan.path, method, in_scanner=False)
    key = key_for(cache.digest(scan.path), scan.path, method)
    with _timed(spent, _PREPARE):
        compute_and_keep(scan.path, method, cache, key, first=lambda _: None)
    with _timed(spent, _CACHED):
        load(scan.path, method, cache)
    return spent


def _unpack(path: Path) -> int:
    content = path.read_bytes()
    return len(gzip.decompress(content) if path.suffix == ".gz" else content)


def _row(step: str, seconds: Sequence[float], floors: Sequence[float]) -> Row:
    ratios = [own / floor for own, floor in zip(seconds, floors, strict=True)]
    return Row(step, len(seconds), median(seconds), max(seconds), median(ratios))


@contextmanager
def _timed(spent: dict[str, float], step: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    spent[step] = time.process_time() - begun
