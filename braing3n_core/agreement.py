"""What a consortium signs and what a hospital signs back: the plan, the code that runs it, and who takes part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError, model_validator

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.plan import Frozen, Name, TrainingPlan, in_words
from privacy.signing import Envelope, PublicKey, SigningKey, opened, sealed

AGREEMENT_TYPE: Final = "application/vnd.braing3n.agreement+json"
APPROVAL_TYPE: Final = "application/vnd.braing3n.approval+json"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Agreement(Frozen):
    """A plan as the consortium signed it. `plan.digest` names the plan alone, `digest` all of it."""

    plan: TrainingPlan
    bundle: Digest                                           # SHA-256 of the app bundle (braing3n_core/bundle.py)
    version: str                                             # of braing3n, which every node has installed
    keys: dict[Name, str]                                    # site -> its public key, PEM

    @model_validator(mode="after")
    def _each_site_has_its_own_key(self) -> Self:
        named, enrolled = {site.name for site in self.plan.sites}, set(self.keys)
        if named != enrolled:
            raise ValueError(f"the plan's sites and the keys differ in {', '.join(sorted(named ^ enrolled))}")
        if len({PublicKey.from_pem(pem.encode()) for pem in self.keys.values()}) < len(self.keys):
            raise ValueError("two sites have one key; each hospital needs its own")
        if self.plan.rehearsal is not None:
            raise ValueError("a rehearsal is never signed; remove [rehearsal] and name the real sites")
        return self

    @property
    def canonical(self) -> bytes:
        """The bytes that are signed: JSON, sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return hashlib.sha256(self.canonical).hexdigest()

    def key(self, site: str) -> PublicKey:
        """The enrolled key of a site of the plan. Raises PlanRefused if the plan has no such site."""
        return PublicKey.from_pem(self.keys[self.plan.site(site).name].encode())

    def signed(self, admin: SigningKey) -> Envelope:
        """A DSSE envelope by the consortium's key."""
        return sealed(AGREEMENT_TYPE, self.canonical, [admin])

    @classmethod
    def opened(cls, envelope: object, admin: PublicKey) -> Agreement:
        """Guarantee: `admin` signed exactly this. Raises SignatureRefused, or PlanRefused if this version cannot read it."""
        payload = opened(envelope, AGREEMENT_TYPE, [admin])
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise PlanRefused(in_words(error, cls)) from error


class Approval(Frozen):
    """A hospital's word that this plan, run by this code, may use its patients."""

    site: Name
    plan: Digest
    agreement: Digest
    bundle: Digest
    version: str
    when: str                                                # UTC, ISO 8601

    @classmethod
    def of(cls, site: str, agreement: Agreement, when: str) -> Approval:
        """The approval of `agreement` by `site`."""
        parts = {"plan": agreement.plan.digest, "agreement": agreement.digest, "bundle": agreement.bundle}
        return cls(site=site, version=agreement.version, when=when, **parts)

    def signed(self, key: SigningKey) -> Envelope:
        """A DSSE envelope by the site's key."""
        return sealed(APPROVAL_TYPE, self.model_dump_json().encode(), [key])

    @classmethod
    def opened(cls, envelope: object, key: PublicKey) -> Approval:
        """Guarantee: the site's `key` signed exactly this. Raises SignatureRefused or IntegrityError."""
        payload = opened(envelope, APPROVAL_TYPE, [key])
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise IntegrityError("the approval was made by another version; approve the plan again") from error

    def covers(self, site: str, agreement: Agreement) -> bool:
        """Whether this is `site`'s approval of exactly this agreement."""
        return self == Approval.of(site, agreement, self.when)


def write_envelope(path: Path, envelope: Envelope) -> None:
    """Put an envelope on disk, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(envelope, indent=1, sort_keys=True) + "\n").encode())


def read_envelope(path: Path) -> Mapping[str, object]:
    """The envelope in a file, nothing about it checked yet. Raises PlanRefused if it holds none."""
    try:
        envelope = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PlanRefused(f"no signed plan at {path}; name the file that the consortium sent") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PlanRefused(f"{path.name} is not a signed plan; ask for the file again") from error
    if not isinstance(envelope, dict):
        raise PlanRefused(f"{path.name} is not a signed plan; ask for the file again")
    return envelope
