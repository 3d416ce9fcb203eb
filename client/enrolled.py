"""Whose keys count in a secure sum: this site's own, and everybody's public halves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from braing3n_core.agreement import Agreement
from client.site_file import SiteFile
from privacy.errors import KeyRefused, SumRefused
from privacy.signing import PublicKey, SigningKey

KEY = "site.key"                                             # in a phantom site's folder


@dataclass(frozen=True)
class Enrolled:
    """Both are looked up when a sum needs them: the private key once a sum, to sign its fresh keys."""

    own: Callable[[], SigningKey]
    roster: Callable[[], Mapping[str, PublicKey]]


def enrolled(site: SiteFile, agreement: Agreement, key: Path) -> Enrolled:
    """A hospital's: the roster is the one that the consortium signed and this site approved, with the plan.

    `key` is where `braing3n-site join` holds the site's key, unlocked, in memory.
    """

    def own() -> SigningKey:
        try:
            return SigningKey.load(key)
        except KeyRefused:                                   # that join ended, and this node outlived it
            return _on_disk(site.key)

    return Enrolled(own, lambda: {name: agreement.key(name) for name in agreement.keys})


def phantoms(folders: Mapping[str, Path], name: str) -> Enrolled:
    """A rehearsal's: every phantom site's key lies in its own folder, made by whoever needs it first."""
    return Enrolled(
        lambda: phantom_key(folders[name] / KEY),
        lambda: {site: phantom_key(folder / KEY).public for site, folder in folders.items()},
    )


def phantom_key(path: Path) -> SigningKey:
    """The key at `path`, made on first use and without passphrase: it stands for a rehearsal and for nothing else."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as scratch, contextlib.suppress(FileExistsError):
            SigningKey.generate().write(Path(scratch) / "key")
            os.link(Path(scratch) / "key", path)             # whole or not at all, and never a second one
    return SigningKey.load(path)


def _on_disk(path: Path) -> SigningKey:
    try:
        return SigningKey.load(path)
    except KeyRefused as error:
        raise SumRefused("this site's key is locked, and the `join` that had unlocked it ended; start join again") from error
