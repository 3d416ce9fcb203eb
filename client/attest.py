"""What a site puts its name to at the end: its whole ledger, and the finished release. Both are signed with the site's own key.

A recipient need not trust the server's word for what was spent: the ledger's records are in the release under these signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from braing3n_core.errors import DataRefused, GateBlocked, IntegrityError
from braing3n_core.manifest import content, digests_of, root
from braing3n_core.statements import APPROVAL, LEDGER, PAYLOAD, statement
from braing3n_core.strict_json import parsed
from privacy.ledger import read_chain
from privacy.signing import Envelope, SigningKey, sealed

CERTIFICATE = "docs/privacy_certificate.json"


@dataclass(frozen=True)
class Check:
    """What a person at the site looked at before the site put its name to a release, and found."""

    role: str                                                # never a name: it is published
    looked_at: int                                           # images
    rating: str                                              # acceptable, or why not
    comment: str = ""
    images: tuple[Mapping[str, object], ...] = ()            # each one's rating and artefacts, from the form (client/rating.py)
    minutes: float | None = None                             # that it took


NOBODY_LOOKED = Check("rehearsal, no person", 0, "not rated: the hospital is a phantom")


def ledger_statement(site_folder: Path, site: str, plan: str, key: SigningKey) -> Envelope:
    """Every record of this site's ledger under its head, signed. `plan` is the digest of the plan that is being released.

    A ledger's records hold events, purposes and digests of what was sent: functions of the plan and of how often it was run,
    and that a round failed, which the server was told when it did.
    """
    records, head = _ledger(site_folder)
    predicate = {"site": site, "plan": plan, "records": records}
    return sealed(PAYLOAD, statement(LEDGER, predicate, f"{site}/ledger.jsonl", head), [key])


def approve(
    release: Path, site_folder: Path, site: str, key: SigningKey, check: Check, with_generator: bool = False
) -> Envelope:
    """The site's signature under the finished folder, the three files that seal it left out.

    Raises IntegrityError unless the release's certificate states this site's ledger as it stands now, head for head, and
    GateBlocked if it gives the generator away and the site did not agree `with_generator`, which is a decision of its own.
    """
    digests, certificate = content(digests_of(release)), _certificate(release)
    _, head = _ledger(site_folder)
    if certificate.get("generator") is True and not with_generator:
        raise GateBlocked("this release gives the generator away too; decide on that, then say --with-generator or refuse")
    if not _stated_head(certificate, site) == head:
        raise IntegrityError(f"the certificate does not state the ledger of {site} as it stands; have it made again")
    predicate = {
        "site": site,
        "decision": "approved",
        "ledger_head": head,
        "reviewer_role": check.role,
        "images_looked_at": check.looked_at,
        "rating": check.rating,
        "comment": check.comment,
        **({"images": list(check.images), "minutes": check.minutes} if check.images else {}),
        **({"generator": True} if certificate.get("generator") is True else {}),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return sealed(PAYLOAD, statement(APPROVAL, predicate, "release content", root(digests)), [key])


def _ledger(site_folder: Path) -> tuple[list[Mapping[str, object]], str]:
    path = site_folder / "ledger.jsonl"
    try:
        records, _ = read_chain(path.read_bytes())
    except OSError as error:
        raise DataRefused(f"no ledger can be read at {path}; name the folder that holds ledger.jsonl") from error
    if not records:
        raise DataRefused(f"the ledger at {path} is empty, so there is nothing to put a name to; take part in a run first")
    return [body for body, _ in records], records[-1][1]


def _certificate(release: Path) -> Mapping[str, object]:
    try:
        return parsed((release / CERTIFICATE).read_bytes(), CERTIFICATE)
    except OSError as error:
        raise IntegrityError(f"the release has no {CERTIFICATE}; have it made again") from error


def _stated_head(certificate: Mapping[str, object], site: str) -> object:
    sites = certificate.get("sites")
    rows = sites if isinstance(sites, list) else []
    return next((row.get("head") for row in rows if isinstance(row, dict) and row.get("site") == site), None)
