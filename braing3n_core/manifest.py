"""What a release consists of, as digests: the list that signatures stand on.

The root of a list is SHA-256 over the files' raw SHA-256 digests in the order of their names (Python's order of POSIX paths),
as the OpenSSF Model Signing specification v1.0 defines it, so tools that we did not write come to the same number.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from braing3n_core.errors import IntegrityError

SIGNATURE = "model.sig"
SUMS = "SHA256SUMS"
ATTESTATIONS = "attestations.intoto.jsonl"
SEALS = (ATTESTATIONS, SUMS, SIGNATURE)                      # in the order in which they are written
NOT_SIGNED = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")   # what model_signing never looks at
Digests = Mapping[str, str]                                  # POSIX path -> SHA-256, hex

_HEX = re.compile(r"[0-9a-f]{64}")


def digests_of(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its SHA-256. Raises IntegrityError on a link, or on what is neither file nor folder."""
    if folder.is_symlink() or not folder.is_dir():
        raise IntegrityError(f"{folder.name} is not a folder; name the folder of a release")
    found = {}
    for path in sorted(folder.rglob("*")):
        name, kind = path.relative_to(folder).as_posix(), path.lstat().st_mode
        if stat.S_ISLNK(kind):
            raise IntegrityError(f"{name} is a link, so what it holds is not part of the release; get the release again")
        if stat.S_ISREG(kind):
            found[name] = file_digest(path)
        elif not stat.S_ISDIR(kind):
            raise IntegrityError(f"{name} is neither a file nor a folder; get the release again")
    return dict(sorted(found.items()))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def root(digests: Digests) -> str:
    """One digest for a whole list. Law: independent of the order in which the list was made."""
    return hashlib.sha256(b"".join(bytes.fromhex(digests[name]) for name in sorted(digests))).hexdigest()


def content(digests: Digests) -> dict[str, str]:
    """The list without the three files that seal it: what sites approve and what the seals speak about."""
    return {name: digest for name, digest in digests.items() if name not in SEALS}


def sums(digests: Digests) -> bytes:
    """SHA256SUMS as `sha256sum -c` reads it: all files but itself and the signature, which is made after it."""
    rows = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()) if name not in (SUMS, SIGNATURE))
    return "".join(rows).encode()


def refuse_unsafe(name: object, digest: object) -> tuple[str, str]:
    """The pair itself, if the name stays inside the folder and the digest is one. Raises IntegrityError otherwise."""
    parts = name.split("/") if isinstance(name, str) else []
    safe = parts and all(part not in ("", ".", "..") for part in parts) and not re.search(r"[\\\x00-\x1f\x7f]", str(name))
    if not safe:
        raise IntegrityError(f"the list names {str(name)[:80]!r}, which is not a path inside the release; get it again")
    if not (isinstance(digest, str) and _HEX.fullmatch(digest)):
        raise IntegrityError(f"the list gives no SHA-256 for {str(name)[:80]}; get the release again")
    return str(name), digest
