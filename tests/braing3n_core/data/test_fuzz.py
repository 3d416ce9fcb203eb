"""Whatever bytes lie where a scan or a table should be: a result or one line of refusal, never a traceback, never a hang."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.data.bids import read_bids
from braing3n_core.data.scans import find_listed
from braing3n_core.data.volume import read_header, read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.plan import DEFAULT_VARIABLES

FUZZ = settings(max_examples=100, deadline=None)


def stored(kind: type) -> bytes:
    values = np.random.default_rng(0).random((9, 10, 11), dtype=np.float32)
    content = io.BytesIO()
    image = kind(values, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.to_file_map({name: nib.FileHolder(fileobj=content) for name in image.file_map})
    return content.getvalue()


BODIES = {".nii": stored(nib.Nifti1Image), ".2.nii": stored(nib.Nifti2Image), ".mgh": stored(nib.MGHImage)}
EDITS = st.lists(st.tuples(st.integers(0, 560), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


# Nibabel leaves the file of a broken header to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@FUZZ
@given(suffix=st.sampled_from(sorted(BODIES)), edits=EDITS, packed=st.booleans(), kept=st.integers(0, 8000) | st.none())
def test_no_header_ends_in_a_traceback(suffix: str, edits: list[tuple[int, bytes]], packed: bool, kept: int | None) -> None:
    content = bytearray(BODIES[suffix])
    for place, raw in edits:
        content[place : place + len(raw)] = raw
    content = content[:kept]
    with TemporaryDirectory() as folder:
        ending = {".mgh": ".mgz"}.get(suffix, f"{suffix}.gz") if packed else suffix
        path = Path(folder) / f"sub-1_T1w{ending}"
        path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
        for read in (read_header, read_volume):
            found, words = outcome(lambda read=read: read(path))
            assert (found is None) == (path.name in words)
            assert "\n" not in words


KNOWN = ["n/a", "sub-01", "30", "nan", "1e999", "F", "dementia"]
CELLS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(KNOWN)
ROWS = st.lists(st.lists(CELLS, min_size=3, max_size=5), max_size=4)


def outcome(read: Callable[[], object]) -> tuple[object, str]:
    """What reading gave, and the refusal's words."""
    try:
        return read(), ""
    except DataRefused as error:
        return None, str(error)


def bids(root: Path) -> Path:
    (root / "sub-01" / "anat").mkdir(parents=True)
    (root / "sub-01" / "anat" / "sub-01_T1w.nii").touch()
    return root


@FUZZ
@given(header=st.permutations(["participant_id", "age", "sex", "diagnosis"]), table=ROWS)
def test_no_table_ends_in_a_traceback(header: list[str], table: list[list[str]]) -> None:
    with TemporaryDirectory() as folder:
        root = bids(Path(folder))
        (root / "participants.tsv").write_text("\n".join("\t".join(row) for row in [header, *table]), encoding="utf-8")
        found, words = outcome(lambda: read_bids(root, DEFAULT_VARIABLES))
        assert "\n" not in words
        for entry in [] if found is None else found[0]:
            age = entry.conditions["age"]
            assert age is None or 18 <= age <= 95


@FUZZ
@given(content=st.binary(max_size=300))
@pytest.mark.parametrize("name", ["participants.tsv", "list.csv"])
def test_no_bytes_in_place_of_a_table_end_in_a_traceback(name: str, content: bytes) -> None:
    with TemporaryDirectory() as folder:
        root = bids(Path(folder))
        (root / name).write_bytes(content)
        columns = {"file": "f", "participant": "p"}
        listed = name == "list.csv"
        read = (lambda: find_listed(root, root / name, columns)) if listed else (lambda: read_bids(root, DEFAULT_VARIABLES))
        found, words = outcome(read)
        assert (found is None) == bool(words)
        assert "\n" not in words
