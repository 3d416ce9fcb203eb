"""Signing a finished release: attestations, then SHA256SUMS over them, then one signature over everything.

The signature is an OpenSSF Model Signing v1.0 statement in a Sigstore bundle v0.3 (github.com/sigstore/model-transparency), so
`model_signing verify key` takes it as it stands. Each later file covers the earlier ones; a crash between them leaves a folder
without a valid signature, and the same call finishes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from braing3n_core.errors import GateBlocked, IntegrityError
from braing3n_core.files import write_atomically
from braing3n_core.manifest import ATTESTATIONS, NOT_SIGNED, SEALS, SIGNATURE, SUMS, Digests, content, digests_of, root, sums
from braing3n_core.statements import APPROVAL, CERTIFICATE, MODEL_SIGNATURE, PAYLOAD, SUMMARY, TEST_RESULT, read, statement
from privacy.signing import Envelope, PublicKey, SigningKey, opened, sealed
from server.release.certificate import refuse_false
from server.release.evidence import Evidence, read_evidence

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SUBJECT = "release content"
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(NOT_SIGNED)}


def seal(folder: Path, key: SigningKey, approvals: Sequence[Envelope]) -> None:
    """Sign the release in `folder`, with the sites' approvals inside. Sealing again replaces the seals.

    Raises GateBlocked if a gate failed or an approval that is needed is missing, and IntegrityError if the folder's documents
    do not hold together, or if an approval is about another folder: what would not verify is not signed.
    """
    # 1. The documents, and what they may be attested for.
    digests = content(digests_of(folder))
    if strange := [name for name in digests if name.split("/")[0] in NOT_SIGNED]:
        raise IntegrityError(f"{strange[0]} is not covered by the signature format; remove it and sign again")
    evidence = read_evidence(folder, digests)
    refuse_false(evidence.plan, evidence.certificate)
    if evidence.gates["verdict"] == "FAILED":
        raise GateBlocked("a gate of this release stayed closed, so it is not signed; docs/gates.json says which and why")
    refuse_unapproved(evidence, approvals)
    # 2. Attestations, 3. sums over them, 4. the signature over all.
    for name in SEALS:
        (folder / name).unlink(missing_ok=True)
    write_atomically(folder / ATTESTATIONS, b"".join(_line(envelope) for envelope in (*_attested(evidence, key), *approvals)))
    write_atomically(folder / SUMS, sums(digests_of(folder)))
    write_atomically(folder / SIGNATURE, bundle(folder.name, digests_of(folder), key))


def refuse_unapproved(evidence: Evidence, approvals: Sequence[Envelope]) -> None:
    """Raise unless every site that must approve did, with its own key, this very content and its ledger's stated head."""
    rows = {row.site: row for row in evidence.certificate.sites}
    waiting = [site.name for site in evidence.plan.sites] if evidence.needs_approvals else []
    if evidence.plan.rehearsal is None and not evidence.policy.rules.approvals.required:
        waiting = evidence.signing_sites
    for envelope in approvals:
        site = approved_by(envelope, evidence)
        if site not in waiting:
            raise IntegrityError(f"{site} approved twice, or is not asked to; leave that approval out")
        waiting.remove(site)
    if waiting:
        unsigned = " and has not signed its ledger" if rows[waiting[0]].public_key is None else ""
        raise GateBlocked(f"{waiting[0]} has not approved this release{unsigned}; ask it to, then sign")


def approved_by(envelope: Envelope, evidence: Evidence) -> str:
    """Whose approval this is. Raises IntegrityError or SignatureRefused unless it is a site's, of this content and ledger."""
    signing = [row for row in evidence.certificate.sites if row.public_key]
    keys = {row.site: (PublicKey.from_pem(str(row.public_key).encode()), row.head) for row in signing}
    claimed = _claimed_site(envelope)
    if claimed not in keys:
        raise IntegrityError(f"an approval is said to be by {claimed[:40]!r}, which has no key in the certificate")
    key, head = keys[claimed]
    kind, subject, predicate = read(opened(envelope, PAYLOAD, [key]), f"the approval of {claimed}")
    if not (kind == APPROVAL and predicate.get("decision") == "approved"):
        raise IntegrityError(f"what {claimed} signed is not an approval; ask it again")
    if not subject == evidence.content:
        raise IntegrityError(f"the approval of {claimed} is about another release than this one; ask it again")
    if evidence.certificate.generator and predicate.get("generator") is not True:
        raise IntegrityError(f"{claimed} approved the images and not that the generator is given away; ask it about that too")
    if not predicate.get("ledger_head") == head:
        raise IntegrityError(f"{claimed} approved another ledger head than the certificate states: one is older; make it again")
    return claimed


def bundle(name: str, digests: Digests, key: SigningKey) -> bytes:
    """model.sig: every file's digest under one signature."""
    listed = {path: digest for path, digest in digests.items() if path != SIGNATURE}
    resources = [{"name": path, "algorithm": "sha256", "digest": listed[path]} for path in sorted(listed)]
    predicate = {"serialization": SERIALIZATION, "resources": resources}
    envelope = sealed(PAYLOAD, statement(MODEL_SIGNATURE, predicate, name, root(listed)), [key])
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(key.public.pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {**envelope, "signatures": [{**one, "keyid": ""} for one in envelope["signatures"]]},
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _attested(evidence: Evidence, key: SigningKey) -> list[Envelope]:
    """What the consortium says: the gates' result, the summary, the certificate."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    said: list[tuple[str, Mapping[str, object]]] = [
        (TEST_RESULT, evidence.test_result()),
        (SUMMARY, evidence.summary(time)),
        (CERTIFICATE, evidence.certificate.model_dump(mode="json")),
    ]
    return [sealed(PAYLOAD, statement(kind, predicate, SUBJECT, evidence.content), [key]) for kind, predicate in said]


def _line(envelope: Envelope) -> bytes:
    return (json.dumps(envelope, sort_keys=True) + "\n").encode()


def _claimed_site(envelope: Envelope) -> str:
    """The name in an approval, before anybody checked it: it only says whose key to try."""
    try:
        _, _, predicate = read(base64.b64decode(envelope["payload"], validate=True), "an approval")
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError("an approval is not a DSSE envelope; ask the site for the file again") from error
    return str(predicate.get("site"))
