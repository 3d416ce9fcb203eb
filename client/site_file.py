"""A hospital's folder and the site.toml in it: who it is, where its scans and keys are, which server it joins, what it allows.

- site.toml: this file; written by the operator, never by a server
- keys/: the site's key, the consortium's public key, the server's CA
- plans/: plans that were approved, each with the site's signature
- ledger.jsonl, audit.jsonl, site.log, cache/, answers/: what client/site.py keeps
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from braing3n_core.errors import UsageError
from braing3n_core.plan import Frozen, Name, in_words
from client.policy import Policy

FILE = "site.toml"


class About(Frozen):
    """The `[site]` table. A relative path begins at the site's folder."""

    name: Name
    data: str                                                # BIDS folder
    key: str = "keys/site.pem"                               # this site's private key; <key>.pub is what it gives away
    admin_key: str = "keys/admin.pub"                        # whose signature makes a plan the consortium's
    server: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+:[0-9]{1,5})?$")] = ""     # host:port; empty: not known yet
    ca: str = "keys/ca.crt"                                  # who vouches for that server


class Contents(Frozen):
    """All of site.toml."""

    site: About
    policy: Policy


@dataclass(frozen=True)
class SiteFile:
    """One hospital's settings, paths resolved."""

    folder: Path
    name: str
    data: Path
    key: Path
    admin_key: Path
    server: str
    ca: Path
    policy: Policy

    @classmethod
    def load(cls, folder: Path) -> SiteFile:
        """Read <folder>/site.toml. Raises UsageError with the first fault: where, what, what next."""
        path = folder.expanduser().absolute() / FILE
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(f"no {FILE} in {path.parent}; make one with: braing3n-site init {folder}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} is not readable as TOML ({error}); correct it and run again") from error
        try:
            contents = Contents.model_validate_json(json.dumps(tables))
        except (TypeError, ValidationError) as error:
            said = in_words(error, Contents, FILE) if isinstance(error, ValidationError) else f"{error}; correct it"
            raise UsageError(f"{path}: {said}") from error
        return cls._resolved(path.parent, contents)

    @classmethod
    def _resolved(cls, folder: Path, contents: Contents) -> SiteFile:
        about = contents.site
        data, key, admin_key, ca = (
            (folder / Path(text).expanduser()).absolute() for text in (about.data, about.key, about.admin_key, about.ca)
        )
        return cls(folder, about.name, data, key, admin_key, about.server, ca, contents.policy)
