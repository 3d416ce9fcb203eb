"""Withdrawing a release: a notice signed with the release key, one line of a list that recipients pass to `verify`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.manifest import content, digests_of, root
from braing3n_core.statements import PAYLOAD, REVOCATION, statement
from privacy.signing import SigningKey, sealed


def revoke(folder: Path, key: SigningKey, reason: str, notices: Path) -> None:
    """Append a signed notice about the release in `folder` to the list `notices`. What was appended before stays.

    Revoking cannot take files back; it tells everybody who asks. Raises UsageError without a reason.
    """
    if not reason.strip():
        raise UsageError("a revocation needs a reason that recipients can act on; give --reason")
    said = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "reason": " ".join(reason.split())}
    envelope = sealed(PAYLOAD, statement(REVOCATION, said, folder.name, root(content(digests_of(folder)))), [key])
    before = notices.read_bytes() if notices.exists() else b""
    notices.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(notices, before + (json.dumps(envelope, sort_keys=True) + "\n").encode())
