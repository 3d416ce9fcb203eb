"""A consortium's folder: its key, the hospitals it enrolled, its certificates, its signed plans and its runs.

- keys/admin.pem: signs plans; readable by its owner alone. keys/admin.pub goes to every hospital.
- roster.json: every hospital's public key
- tls/: ca.crt, server.crt, server.key
- plans/: signed plans, one file a study
- runs/: one folder a plan
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.plan import Frozen, Name, in_words
from privacy.signing import PublicKey, SigningKey


class Roster(Frozen):
    """Who takes part: each hospital's public key, PEM, by its name. No two hospitals share one."""

    keys: dict[Name, str]

    def enrolled(self, site: str, key: PublicKey) -> Roster:
        """With one hospital more. Raises PlanRefused if its name or its key is taken."""
        if site in self.keys:
            raise PlanRefused(f"{site} is enrolled already; to give it a new key, remove it first: braing3n-admin remove")
        for other, pem in self.keys.items():
            if PublicKey.from_pem(pem.encode()) == key:
                raise PlanRefused(f"this key is {other}'s already; each hospital makes its own with: braing3n-site init")
        return self._with({**self.keys, site: key.pem.decode()})

    def without(self, site: str) -> Roster:
        """With one hospital less. Raises PlanRefused if it is not there."""
        if site not in self.keys:
            raise PlanRefused(f"{site} is not enrolled; enrolled are: {', '.join(sorted(self.keys)) or 'none'}")
        return self._with({name: pem for name, pem in self.keys.items() if name != site})

    @classmethod
    def _with(cls, keys: dict[str, str]) -> Roster:
        try:
            return cls.model_validate_json(json.dumps({"keys": keys}))
        except ValidationError as error:
            raise PlanRefused(in_words(error, cls, "roster")) from error


@dataclass(frozen=True)
class Consortium:
    """The folder, and where things in it are."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Consortium:
        """Raises UsageError if there is no consortium in `folder`."""
        found = cls(folder.expanduser().absolute())
        if not found.admin_key.exists():
            raise UsageError(f"no consortium in {folder}; make one with: braing3n-admin init {folder}")
        return found

    @classmethod
    def make(cls, folder: Path, passphrase: bytes | None = None) -> Consortium:
        """Begin a consortium: a fresh key and an empty roster. Raises KeyRefused if there is one."""
        made = cls(folder.expanduser().absolute())
        made.admin_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        SigningKey.generate().write(made.admin_key, passphrase)
        made.write_roster(Roster(keys={}))
        return made

    @property
    def admin_key(self) -> Path:
        """The private key that makes a plan the consortium's."""
        return self.folder / "keys" / "admin.pem"

    @property
    def admin(self) -> PublicKey:
        """Its public half."""
        return PublicKey.load(self.admin_key.with_name("admin.pem.pub"))

    @property
    def tls(self) -> Path:
        """ca.crt, server.crt and server.key."""
        return self.folder / "tls"

    def run(self, digest: str) -> Path:
        """Where the run of a plan keeps its checkpoints, lines and release."""
        return self.folder / "runs" / digest[:16]

    def roster(self) -> Roster:
        """Who is enrolled. Raises PlanRefused if the file was damaged."""
        path = self.folder / "roster.json"
        try:
            return Roster.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise PlanRefused(f"{path} cannot be read; restore it, or enrol every hospital again") from error

    def write_roster(self, roster: Roster) -> None:
        """Replace the roster, whole or not at all."""
        write_atomically(self.folder / "roster.json", (roster.model_dump_json(indent=1) + "\n").encode())
