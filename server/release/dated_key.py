"""A publisher's public key and the last day on which to trust it: a line above the PEM, where other programs read over it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from braing3n_core.errors import IntegrityError
from privacy.signing import PublicKey

_LINE = re.compile(rb"^not after:\s*(\S*)\s*$", re.IGNORECASE | re.MULTILINE)
_BEGIN = b"-----BEGIN"


@dataclass(frozen=True)
class DatedKey:
    """A key as its owner gave it away. `last_day` None: until the owner says otherwise."""

    key: PublicKey
    last_day: date | None = None

    @classmethod
    def load(cls, path: Path) -> DatedKey:
        """From a PEM file; "Not after: 2028-12-31" may stand above the key (RFC 7468 allows words there).

        The date needs no signature: whoever could change it could as well change the key below it, which is why the file has to
        come by another road than the release. Raises KeyRefused for no key, IntegrityError for a date that is none.
        """
        key, above = PublicKey.load(path), path.read_bytes().split(_BEGIN)[0]
        found = _LINE.findall(above)
        if not found:
            return cls(key)
        try:
            (text,) = found
            return cls(key, date.fromisoformat(text.decode("ascii")))
        except ValueError as error:
            raise IntegrityError(f"{path.name} does not say clearly until when it is trusted; get it again") from error

    def refuse_expired(self, today: date) -> None:
        """Raise IntegrityError after the last day. A signature's own date is its signer's word, so it does not count."""
        if self.last_day is not None and not today <= self.last_day:
            raise IntegrityError(f"the key was trusted until {self.last_day}; ask the publisher for its present key file")
