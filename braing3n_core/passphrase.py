"""Where a key's passphrase comes from: a file that only its owner can read, or the person at the terminal. Never a word."""

from __future__ import annotations

import getpass
import stat
import sys
from pathlib import Path

from braing3n_core.errors import UsageError


def passphrase_for(key: Path, file: Path | None) -> bytes | None:
    """The passphrase of the private key at `key`; None if the key has none. Raises UsageError with what to do."""
    if file is not None:
        return from_file(file)
    if not (key.is_file() and b"ENCRYPTED" in key.read_bytes()):
        return None
    if not sys.stdin.isatty():
        raise UsageError(f"{key.name} has a passphrase and nobody is at a terminal; give --passphrase-file FILE")
    return getpass.getpass(f"passphrase of {key}: ").encode()


def from_file(file: Path) -> bytes:
    """The first line of a file that nobody but its owner can read."""
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise UsageError(f"{file} may be read by others; chmod 600 it, and choose a new passphrase")
        line = file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise UsageError(f"no passphrase can be read at {file}; name the file that holds it") from error
    if not line:
        raise UsageError(f"{file} begins with an empty line; put the passphrase into its first line")
    return line
