"""`braing3n-site embed`: every usable scan of a BIDS folder as one row of numbers, for the hospital's own prediction tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar, get_args

from braing3n_core.data.bids import find_scans
from braing3n_core.data.preprocess import onto_template
from braing3n_core.data.scans import ScanFile
from braing3n_core.embedding import Pool, embed
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import Brain
from braing3n_core.prior import SHIPPED, read_prior

_DIGITS = 6
Registration = Literal["affine", "none"]
Say = Callable[[str], None]
Choice = TypeVar("Choice", bound=str)


def chosen(weights: Path | None, pool: str, registration: str) -> tuple[Brain, Pool, Registration]:
    """What the command line asks for: the model, how tokens are pooled, how scans are aligned. Raises UsageError by name."""
    model = read_prior(weights or SHIPPED / "tiny.safetensors")
    return model, _one_of(get_args(Pool), pool, "pool"), registered(registration)


def registered(word: str) -> Registration:
    """How scans are aligned. Raises UsageError for another word."""
    return _one_of(get_args(Registration), word, "registration")


def _one_of(known: tuple[Choice, ...], word: str, option: str) -> Choice:
    for each in known:
        if each == word:
            return each
    raise UsageError(f"--{option} {word}: choose from {', '.join(known)}")


def write_embeddings(
    data: Path, out: Path, model: Brain, pool: Pool, registration: Registration, say: Say
) -> tuple[int, int]:
    """Write `out` as TSV: participant_id, session (n/a if none), modality, e0, e1, ...; return (rows, scans left out).

    The rows are personal data without any protection and are for this site alone. A scan that cannot be used is named with
    its reason and left out. Raises DataRefused if none can be, UsageError if `out` has no folder to be in.
    """
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to write {out.name} to; make it first")
    found, unusable = find_scans(data)
    for one in unusable:
        say(f"left out {one.file}: {one.reason}")
    scans = [scan for group in found.values() for scan in group]
    rows = list(_rows(scans, model, pool, registration, say))
    total = len(scans) + len(unusable)
    if not rows:
        raise DataRefused(f"not one of {total} scans in {data} can be used; the reasons are in the lines above")
    width = len(rows[0]) - 3
    lines = [["participant_id", "session", "modality", *(f"e{place}" for place in range(width))], *rows]
    write_atomically(out, ("\n".join("\t".join(line) for line in lines) + "\n").encode())
    return len(rows), total - len(rows)


def _rows(
    scans: list[ScanFile], model: Brain, pool: Pool, registration: Registration, say: Say
) -> Iterator[list[str]]:
    for done, scan in enumerate(scans, start=1):
        try:
            volume = onto_template(scan.path, model.preset, registration)
        except DataRefused as error:
            say(f"left out {scan.file}: {error}")
            continue
        numbers = [f"{value:.{_DIGITS}g}" for value in embed(model, volume[None], pool)[0].tolist()]
        yield [scan.participant, scan.session or "n/a", scan.modality, *numbers]
        say(f"embedded {done} of {len(scans)}")
