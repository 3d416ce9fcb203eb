"""`braing3n-site prepare`: every scan of a hospital on the grid, measured, and a page of each to look at.

OUT/morphometry.tsv   one row per usable scan, ml in the scanner's space, n/a where a modality cannot tell
OUT/excluded.tsv      what was left out, why, and what to do
OUT/qc/index.html     all scans at a glance; a click opens the scan's page
OUT/cache/            what was computed, by content: the next run, and training in the same folder, read it

All of it holds patients' data and stays at the site. Stopping at any moment keeps every scan that was finished.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from braing3n_core.data.cache import Cache, Record
from braing3n_core.data.keys import key_of_scan
from braing3n_core.data.scans import Excluded, Found, ScanFile
from braing3n_core.data.tables import write_table
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.models.presets import PRESETS
from client.index_page import index_page, picture_of
from client.measures import MEASURES, cell
from client.workers import Answer, Task, cores, run_all

WORKER = "client.prepare_worker"
_LONGEST_S = 1200.0                                          # of one scan, the site's own mask command included
Progress = Callable[[int, int], None]                        # scans done, of those that must be computed


@dataclass(frozen=True)
class Options:
    """How scans are prepared."""

    preset: str = "small"
    n4: bool = False
    mask_command: str = ""
    jobs: int = 0                                            # processes; 0: one for each core


@dataclass(frozen=True)
class Scan:
    """One file, its name in the cache, and its page."""

    file: ScanFile
    key: str
    page: Path


@dataclass(frozen=True)
class Summary:
    """What a run did. Counts are of this site and are shown to its operator alone."""

    usable: int
    excluded: int
    computed: int
    reused: int
    out: str

    def in_words(self) -> str:
        """For a person."""
        left_out = f", {self.excluded} left out (see {self.out}/excluded.tsv)" if self.excluded else ""
        return f"{self.usable} scans ready, {self.reused} of them known before{left_out}\nlook at {self.out}/qc/index.html"

    def as_json(self) -> dict[str, Any]:
        """With the names of the files that were written."""
        files = {"morphometry": "morphometry.tsv", "excluded_table": "excluded.tsv", "qc": "qc/index.html"}
        return asdict(self) | {name: str(Path(self.out) / file) for name, file in files.items()}


def prepare(found: Found, out: Path, options: Options, progress: Progress | None = None) -> Summary:
    """Prepare what is not in the cache yet and write the tables and pages. Raises DataRefused if nothing usable remains."""
    if options.preset not in PRESETS:
        raise UsageError(f"no preset {options.preset!r}; known are {', '.join(PRESETS)}")
    for folder in (out, out / "qc", out / "qc" / "scans"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache = Cache(out / "cache")
    try:
        scans, twins = _named(found, out, options, cache)
        missing = [scan for scan in scans if _entry(scan, cache) is None]
        lost = _computed(missing, out, options, progress)
    finally:
        cache.close()
    return _written(scans, [*found.excluded, *twins], lost, len(missing), out, cache)


def _named(found: Found, out: Path, options: Options, cache: Cache) -> tuple[list[Scan], list[Excluded]]:
    """Every scan once: the same file under a second name is a mistake, whoever it belongs to."""
    scans: list[Scan] = []
    excluded: list[Excluded] = []
    owner: dict[tuple[str, str], str] = {}
    preset = PRESETS[options.preset]
    for file in found.scans:
        try:
            content = cache.digest(file.path)
        except DataRefused as error:
            excluded.append(Excluded(file.file, str(error)))
            continue
        first = owner.setdefault((content, file.modality), file.file)
        if first != file.file:
            excluded.append(Excluded(file.file, f"the same scan as {first}; keep the one whose name is right"))
            continue
        key = key_of_scan(content, file.path, preset, "affine", file.modality, options.n4, options.mask_command)
        name = "_".join(part for part in (file.participant, file.session, file.modality) if part)
        scans.append(Scan(file, key, out / "qc" / "scans" / f"{name}-{key[:12]}.html"))
    return scans, excluded


def _entry(scan: Scan, cache: Cache) -> Record | None:
    """The scan's record if there is a page as well, and a picture of what can be used."""
    record = cache.record(scan.key) if scan.page.is_file() else None
    if record is not None and "refused" not in record and not picture_of(scan.page).is_file():
        return None
    whole = record is not None and ("refused" in record or "volumes" in record)             # training measures less
    return record if whole else None


def _computed(missing: list[Scan], out: Path, options: Options, progress: Progress | None) -> dict[str, str]:
    """Work through what is missing, in processes. What left no record, by file: why."""
    lost: dict[str, str] = {}
    log: list[str] = []
    counted = 0

    def done(task: Task, answer: Answer) -> None:
        nonlocal counted
        counted += 1
        if "died" in answer:
            lost[task["file"]] = f"it could not be prepared: {answer['died']}; give the machine more memory or leave it out"
        if "failed" in answer:
            lost[task["file"]] = f"preparing it failed unexpectedly ({answer['failed']}); report it with prepare.log"
            log.append(f"{task['file']}\n{answer['trace']}")
        if progress:
            progress(counted, len(missing))

    tasks = [_task(scan, out, options) for scan in missing]
    run_all(WORKER, tasks, options.jobs or cores(), _LONGEST_S, done)
    if log:
        write_atomically(out / "prepare.log", "\n".join(log).encode("utf-8", "backslashreplace"))
    return lost


def _task(scan: Scan, out: Path, options: Options) -> Task:
    return {
        "path": str(scan.file.path.absolute()), "file": scan.file.file, "modality": scan.file.modality, "key": scan.key,
        "page": str(scan.page.absolute()), "cache": str((out / "cache").absolute()), "preset": options.preset,
        "n4": options.n4, "mask_command": options.mask_command,
    }  # fmt: skip


def _written(
    scans: list[Scan], excluded: list[Excluded], lost: dict[str, str], computed: int, out: Path, cache: Cache
) -> Summary:
    usable: list[tuple[Scan, Record]] = []
    pages: dict[str, Path] = {}
    for scan in scans:
        record = cache.record(scan.key)
        if record is not None and "refused" not in record:
            usable.append((scan, record))
            continue
        reason = lost.get(scan.file.file, "it was not finished; run again") if record is None else str(record["refused"])
        excluded.append(Excluded(scan.file.file, reason))
        if scan.page.is_file():
            pages[scan.file.file] = scan.page
    excluded.sort(key=lambda one: one.file)
    _forget(out, {scan.page for scan in scans})
    write_table(out / "morphometry.tsv", ("participant_id", "session", "modality", *MEASURES), _rows(usable))
    write_table(out / "excluded.tsv", ("file", "reason", "remedy"), [(one.file, one.why, one.remedy) for one in excluded])
    write_atomically(out / "qc" / "index.html", index_page(_points(usable), excluded, pages).encode("utf-8"))
    if not usable:
        raise DataRefused(f"not one scan can be used, {len(excluded)} were left out; {out / 'excluded.tsv'} says why of each")
    return Summary(len(usable), len(excluded), computed, len(scans) - computed, str(out))


def _rows(usable: list[tuple[Scan, Record]]) -> Iterator[tuple[str, ...]]:
    for scan, record in usable:
        file = scan.file
        yield file.participant, file.session or "n/a", file.modality, *(cell(record["volumes"][name]) for name in MEASURES)


def _points(usable: list[tuple[Scan, Record]]) -> list[dict[str, Any]]:
    return [
        {
            "file": scan.file.file,
            "modality": scan.file.modality,
            "page": scan.page.name,
            "picture": base64.b64encode(picture_of(scan.page).read_bytes()).decode("ascii"),
            "volumes": record["volumes"],
        }
        for scan, record in usable
    ]


def _forget(out: Path, wanted: set[Path]) -> None:
    """Pages and pictures of scans that are gone or changed."""
    for file in (out / "qc" / "scans").glob("*"):
        if file.with_suffix(".html") not in wanted:
            file.unlink()
