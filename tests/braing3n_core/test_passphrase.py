"""A passphrase comes from a file of its owner alone or from a person, and its absence is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from braing3n_core.passphrase import passphrase_for
from privacy.signing import SigningKey

SECRET = b"six random words are a good one"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_first_line_of_the_file_opens_the_key(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.write(tmp_path / "key.pem", SECRET)
    file = written(tmp_path / "secret", SECRET + b"\r\nnotes\n")
    opened = SigningKey.load(tmp_path / "key.pem", passphrase_for(tmp_path / "key.pem", file))
    assert opened.public == key.public


def test_a_key_without_a_passphrase_asks_for_none(tmp_path: Path) -> None:
    SigningKey.generate().write(tmp_path / "key.pem")
    assert passphrase_for(tmp_path / "key.pem", None) is None
    assert passphrase_for(tmp_path / "none.pem", None) is None


def test_without_a_terminal_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SigningKey.generate().write(tmp_path / "key.pem", SECRET)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageError, match="give --passphrase-file"):
        passphrase_for(tmp_path / "key.pem", None)


@pytest.mark.parametrize(("content", "mode", "said"), [(SECRET, 0o640, "read by others"), (b"\nx", 0o600, "empty line")])
def test_a_file_that_others_read_or_that_holds_nothing_is_refused(tmp_path: Path, content: bytes, mode: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        passphrase_for(tmp_path / "key.pem", written(tmp_path / "secret", content, mode))
    assert SECRET.decode() not in str(refused.value)
    with pytest.raises(UsageError, match="name the file"):
        passphrase_for(tmp_path / "key.pem", tmp_path / "none")
