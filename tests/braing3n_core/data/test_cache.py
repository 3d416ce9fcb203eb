"""A cache believes nothing that could be old, cut or changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from braing3n_core.data.cache import Cache
from braing3n_core.errors import DataRefused


def aged(path: Path, content: bytes) -> Path:
    """A file whose content was last changed long enough ago to be trusted."""
    path.write_bytes(content)
    return path


@pytest.fixture
def patient_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour later, so that no file counts as just changed."""
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("braing3n_core.data.cache.time.time_ns", lambda: later)


@pytest.mark.usefixtures("patient_clock")
def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = aged(tmp_path / "scan", b"one")
    cache = Cache(tmp_path / "cache")
    first = cache.digest(file)
    cache.close()
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert Cache(tmp_path / "cache").digest(file) == first


@pytest.mark.usefixtures("patient_clock")
def test_a_change_that_hides_behind_the_old_time_and_size_is_seen(tmp_path: Path) -> None:
    file = aged(tmp_path / "scan", b"one")
    cache = Cache(tmp_path / "cache")
    first, about = cache.digest(file), file.stat()
    time.sleep(0.02)
    file.write_bytes(b"two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert cache.digest(file) != first


def test_a_file_that_just_changed_is_read_again(tmp_path: Path) -> None:
    file = aged(tmp_path / "scan", b"one")
    cache = Cache(tmp_path / "cache")
    cache.digest(file)
    cache.close()
    assert not (tmp_path / "cache" / "index.json").exists()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="cannot be read"):
        Cache(tmp_path / "cache").digest(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "list", "deep"])
def test_a_damaged_record_or_index_is_forgotten(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.keep("k", {"refused": "why; what next"})
    assert cache.record("k") == {"refused": "why; what next"}
    for path in (tmp_path / "k.json", tmp_path / "index.json"):
        content = (tmp_path / "k.json").read_bytes()
        spoilt = {"cut": content[:-3], "bit": content.replace(b"why", b"who"), "empty": b"", "list": b"[]"}
        spoilt["deep"] = b"[" * 10**5
        path.write_bytes(spoilt[damage])
    assert Cache(tmp_path).record("k") is None
    assert len(Cache(tmp_path).digest(tmp_path / "k.json")) == 64


@pytest.mark.parametrize("size", [None, 5, 7])
def test_a_record_without_its_volume_is_no_entry(tmp_path: Path, size: int | None) -> None:
    cache = Cache(tmp_path)
    cache.volume("k").write_bytes(bytes(6))
    cache.keep("k", {"volumes": {}})
    assert cache.record("k") is not None
    cache.volume("k").unlink()
    if size is not None:
        cache.volume("k").write_bytes(bytes(size))
    assert cache.record("k") is None
