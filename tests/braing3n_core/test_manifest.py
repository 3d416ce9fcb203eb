from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from braing3n_core.errors import IntegrityError
from braing3n_core.manifest import content, digests_of, refuse_unsafe, root, sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a/z.txt", "a.txt", ".hidden", "model.sig", "SHA256SUMS", "attestations.intoto.jsonl"):
        path = tmp_path / "release" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "release"


def test_the_root_is_the_one_of_the_model_signing_specification(folder: Path) -> None:
    """SHA-256 over the raw digests, in Python's order of POSIX names: '.hidden' < 'a.txt' < 'a/z.txt' < 'b.txt'."""
    digests = content(digests_of(folder))
    assert list(digests) == [".hidden", "a.txt", "a/z.txt", "b.txt"]
    by_hand = b"".join(hashlib.sha256(name.encode()).digest() for name in digests)
    assert root(digests) == hashlib.sha256(by_hand).hexdigest()
    assert root(dict(reversed(digests.items()))) == root(digests)


def test_the_sums_leave_out_what_is_made_after_them(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(sums(digests_of(folder)))
    named = [line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert "model.sig" not in named
    assert "SHA256SUMS" not in named
    assert "attestations.intoto.jsonl" in named
    subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)


def test_a_link_or_a_pipe_is_never_part_of_a_release(folder: Path) -> None:
    os.symlink("b.txt", folder / "link.txt")
    with pytest.raises(IntegrityError, match=r"link\.txt is a link"):
        digests_of(folder)
    (folder / "link.txt").unlink()
    os.symlink(folder / "a", folder / "again")
    with pytest.raises(IntegrityError, match="again is a link"):
        digests_of(folder)
    (folder / "again").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(IntegrityError, match="neither a file nor a folder"):
        digests_of(folder)
    os.symlink(folder, folder.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="is not a folder"):
        digests_of(folder.parent / "elsewhere")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "a\\b", "a\nb", "a\0b", 7, None])
def test_a_name_that_leaves_the_folder_is_refused(name: object) -> None:
    with pytest.raises(IntegrityError, match="not a path inside the release"):
        refuse_unsafe(name, "0" * 64)


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64, None, 0])
def test_a_digest_that_is_none_is_refused(digest: object) -> None:
    with pytest.raises(IntegrityError, match="no SHA-256"):
        refuse_unsafe("a.txt", digest)
