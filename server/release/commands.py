"""What the release commands of `braing3n-admin` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braing3n_core.errors import IntegrityError, UsageError
from braing3n_core.manifest import SIGNATURE
from braing3n_core.strict_json import parsed
from privacy.signing import SigningKey
from server.release.dated_key import DatedKey
from server.release.revoke import revoke
from server.release.seal import seal
from server.release.verify import Verdict, verify


def sign_release(folder: Path, key: Path, approvals: Sequence[Path], passphrase_file: Path | None) -> str:
    """Sign a finished release and say so. Raises GateBlocked, IntegrityError or KeyRefused."""
    signer = SigningKey.load(key, _passphrase(passphrase_file))
    seal(folder, signer, [parsed(_read(path), path.name) for path in approvals])
    return f"signed: {folder / SIGNATURE}, key {signer.public.fingerprint}"


def verify_release(folder: Path, key: Path, revocations: Path | None) -> Verdict:
    """Check a release. Raises IntegrityError with the step that failed."""
    return verify(folder, DatedKey.load(key), revocations)


def revoke_release(folder: Path, key: Path, reason: str, notices: Path, passphrase_file: Path | None) -> str:
    """Append a signed notice to the list `notices`."""
    revoke(folder, SigningKey.load(key, _passphrase(passphrase_file)), reason, notices)
    return f"revoked: {folder.name}; publish {notices}"


def _passphrase(path: Path | None) -> bytes | None:
    """The first line of a file: a passphrase never stands on a command line."""
    if path is None:
        return None
    try:
        return path.read_bytes().splitlines()[0]
    except (OSError, IndexError) as error:
        raise UsageError(f"no passphrase can be read at {path}; name a file whose first line it is") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"no approval can be read at {path}; ask the site for it") from error
