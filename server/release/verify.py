"""Whether a release is what was signed and says what is true. Offline, with public keys alone; each step is numbered.

 1. folder         every entry is a file or a folder; no link
 2. signature      model.sig is a bundle whose statement the release key signed, and that key has not expired
 3. files          exactly the files of the signed list, byte for byte
 4. sums           SHA256SUMS says the same
 5. documents      plan, policy, gates and certificate are there, one of each, and agree
 6. certificate    every number recomputed from the events inside; every ledger under its site's signature
 7. attestations   gates, summary and certificate, signed with the release key, about this content and nothing else
 8. approvals      every site of the plan approved this content, with the ledger head that the certificate states
 9. images         each one is marked as synthetic, and there are as many as the certificate says
10. revocation     no notice by the release key withdraws this release
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from braing3n_core.errors import Braing3nError, IntegrityError
from braing3n_core.manifest import ATTESTATIONS, SIGNATURE, SUMS, digests_of, refuse_unsafe, root, sums
from braing3n_core.statements import (
    CERTIFICATE,
    MODEL_SIGNATURE,
    PAYLOAD,
    REVOCATION,
    SUMMARY,
    TEST_RESULT,
    read,
)
from braing3n_core.strict_json import Value, parsed
from privacy.errors import PrivacyError
from privacy.signing import PublicKey, opened
from server.release.certificate import refuse_false
from server.release.dated_key import DatedKey
from server.release.evidence import Evidence, read_evidence
from server.release.seal import BUNDLE, SERIALIZATION, refuse_unapproved

_HEADER_BYTES = 352                                          # of a NIfTI-1 file
_LARGEST_LIST = 1 << 26                                      # bytes of one sealing file


@dataclass
class Verdict:
    """Every step that passed, in order, and what a recipient should know."""

    release: str = ""
    steps: list[tuple[int, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self), indent=1)

    def in_words(self) -> str:
        """For a person."""
        lines = [f"{number:>2}. {name:<13} ok  {found}" for number, name, found in self.steps]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), f"verified: {self.release}"])


def verify(
    folder: Path, trusted: PublicKey | DatedKey, revocations: Path | None = None, today: date | None = None
) -> Verdict:
    """Check the release in `folder` against the release key. Raises IntegrityError naming the first step that fails."""
    verdict, dated = Verdict(), trusted if isinstance(trusted, DatedKey) else DatedKey(trusted)
    key = dated.key
    with _step(verdict, 1, "folder") as said:
        digests = digests_of(folder)
        said.append(f"{len(digests)} files, no link among them")
    with _step(verdict, 2, "signature") as said:
        dated.refuse_expired(today or datetime.now(UTC).date())
        listed = _signed_list(_read(folder, SIGNATURE), key)
        said.append(f"by key {key.fingerprint[:16]}")
    with _step(verdict, 3, "files") as said:
        _refuse_other_files({name: digest for name, digest in digests.items() if name != SIGNATURE}, listed)
        said.append(f"{len(listed)} files as signed, none missing, none added")
    with _step(verdict, 4, "sums") as said:
        if not _read(folder, SUMS) == sums(digests):
            raise IntegrityError(f"{SUMS} does not say what was signed; get the release again")
        said.append(f"{SUMS} agrees")
    with _step(verdict, 5, "documents") as said:
        evidence = read_evidence(folder, digests)
        verdict.release = evidence.certificate.release
        said.append(f"plan {evidence.plan.digest[:16]}, policy {evidence.policy.digest[:16]}")
    with _step(verdict, 6, "certificate") as said:
        refuse_false(evidence.plan, evidence.certificate)
        spent, alone = evidence.certificate.epsilon, evidence.certificate.fallback
        stated = spent if isinstance(spent, str) else f"{spent:.4g}"
        if alone is not None:
            stated += f", {alone if isinstance(alone, str) else f'{alone:.4g}'} against server and all other sites together,"
        said.append(f"epsilon {stated} recomputed from the events of {len(evidence.plan.sites)} sites")
    with _step(verdict, 7, "attestations") as said:
        approvals = _attested(_read(folder, ATTESTATIONS), key, evidence)
        said.append(f"gates {evidence.gates['verdict']}")
    with _step(verdict, 8, "approvals") as said:
        refuse_unapproved(evidence, approvals)
        said.append(f"{len(approvals)} of {len(evidence.plan.sites)} sites")
    with _step(verdict, 9, "images") as said:
        said.append(f"{_marked(folder, list(listed), evidence)} images, every one marked as synthetic")
    with _step(verdict, 10, "revocation") as said:
        said.append(_not_revoked(revocations, key, evidence.content))
    verdict.notes += _notes(evidence)
    return verdict


@contextmanager
def _step(verdict: Verdict, number: int, name: str) -> Iterator[list[str]]:
    said: list[str] = []
    try:
        yield said
    except (Braing3nError, PrivacyError) as error:
        raise IntegrityError(f"step {number}, {name}: {error}") from error
    verdict.steps.append((number, name, " ".join(said)))


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise IntegrityError(f"{name} is missing, so the release is not signed; get it again from its publisher")
    if not path.stat().st_size <= _LARGEST_LIST:
        raise IntegrityError(f"{name} is larger than any such file can be; get the release again")
    return path.read_bytes()


def _signed_list(raw: bytes, key: PublicKey) -> dict[str, str]:
    """The list of files that the key signed, every name inside the folder, and its root digest right."""
    document = parsed(raw, SIGNATURE)
    if not document.get("mediaType") == BUNDLE:
        raise IntegrityError(f"{SIGNATURE} is not a Sigstore bundle v0.3; get the release again")
    kind, subject, predicate = read(opened(document.get("dsseEnvelope"), PAYLOAD, [key]), SIGNATURE)
    match predicate:
        case {"serialization": dict(serialization), "resources": list(resources)} if kind == MODEL_SIGNATURE:
            pass
        case _:
            raise IntegrityError(f"{SIGNATURE} does not hold a model signature v1.0; get the release again")
    if not serialization == SERIALIZATION:
        raise IntegrityError(f"{SIGNATURE} was made by other rules than this format has; get the release again")
    listed: dict[str, str] = {}
    for row in resources:
        name, digest = refuse_unsafe(*_name_and_digest(row))
        if name in listed:
            raise IntegrityError(f"the list names {name} twice; get the release again")
        listed[name] = digest
    if not root(listed) == subject:
        raise IntegrityError("the list does not lead to the digest it was signed under; get the release again")
    return listed


def _name_and_digest(row: object) -> tuple[object, object]:
    match row:
        case {"name": name, "algorithm": "sha256", "digest": digest}:
            return name, digest
        case _:
            raise IntegrityError("the list has an entry that is not a file with its SHA-256; get the release again")


def _refuse_other_files(found: Mapping[str, str], listed: Mapping[str, str]) -> None:
    if missing := sorted(listed.keys() - found.keys()):
        raise IntegrityError(f"{missing[0]} was signed and is missing; get the release again")
    if added := sorted(found.keys() - listed.keys()):
        raise IntegrityError(f"{added[0]} is there and was not signed; remove it or get the release again")
    if changed := sorted(name for name in listed if listed[name] != found[name]):
        raise IntegrityError(f"{changed[0]} is not what was signed; get the release again")


def _attested(raw: bytes, key: PublicKey, evidence: Evidence) -> list[Value]:
    """The sites' approvals, after the consortium's own three statements were found to be what the documents say."""
    lines = raw.splitlines()
    envelopes = [parsed(line, f"line {number} of {ATTESTATIONS}") for number, line in enumerate(lines, start=1)]
    stated = evidence.certificate.model_dump(mode="json")
    expected = [(TEST_RESULT, evidence.test_result()), (SUMMARY, None), (CERTIFICATE, stated)]
    if not len(envelopes) >= len(expected):
        raise IntegrityError(f"{ATTESTATIONS} has {len(envelopes)} statements, at least {len(expected)} belong there")
    for envelope, (kind, predicate) in zip(envelopes, expected, strict=False):
        name = kind.rsplit("/", 2)[-2] if kind.startswith("https") else kind
        found, subject, said = read(opened(envelope, PAYLOAD, [key]), f"the statement {name}")
        if not (found == kind and subject == evidence.content):
            raise IntegrityError(f"the statement {name} is missing, or is about another release")
        wanted = evidence.summary(str(said.get("timeCreated"))) if predicate is None else predicate
        # Compared as JSON, because that is what was signed: a tuple and a list are one thing there.
        if not json.loads(json.dumps(wanted)) == said:
            raise IntegrityError(f"the statement {name} says something else than the release's own documents")
    return envelopes[len(expected) :]


def _marked(folder: Path, names: list[str], evidence: Evidence) -> int:
    images = [name for name in names if name.endswith((".nii", ".nii.gz"))]
    for name in images:
        sidecar = name.removesuffix(".gz").removesuffix(".nii") + ".json"
        marked = sidecar in names and parsed((folder / sidecar).read_bytes(), sidecar).get("SyntheticData") is True
        if not (marked and _described(folder / name).startswith(b"SYNTHETIC")):
            raise IntegrityError(f"{name} does not say in header and sidecar that it is synthetic; do not use the release")
    if not len(images) == evidence.certificate.images:
        raise IntegrityError(f"there are {len(images)} images; the certificate is about {evidence.certificate.images}")
    return len(images)


def _described(path: Path) -> bytes:
    """The `descrip` field of a NIfTI-1 header."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(_HEADER_BYTES)[148:228]
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"{path.name} cannot be unpacked; get the release again") from error


def _not_revoked(path: Path | None, key: PublicKey, content: str) -> str:
    """Fails closed: a list that holds anything but notices of the release key is no list."""
    if path is None:
        return "no list was given"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise IntegrityError(f"no revocation list can be read at {path.name}; get it again from the publisher") from error
    for number, line in enumerate(lines, start=1):
        what = f"line {number} of {path.name}"
        kind, subject, notice = read(opened(parsed(line, what), PAYLOAD, [key]), what)
        if not kind == REVOCATION:
            raise IntegrityError(f"{what} is not a revocation; get the list again from the publisher")
        if subject == content:
            raise IntegrityError(f"this release was revoked on {notice.get('time')}: {notice.get('reason')}; do not use it")
    return f"none of {len(lines)} notices is about this release"


def _notes(evidence: Evidence) -> Iterator[str]:
    keys = {row.site: PublicKey.from_pem(row.public_key.encode()) for row in evidence.certificate.sites if row.public_key}
    if evidence.plan.rehearsal is not None:
        yield "a rehearsal: its hospitals are phantoms"
    if not keys:
        yield "no site signed: what was spent is the issuer's word"
    for site, key in keys.items():
        yield f"{site} signs with key {key.fingerprint[:32]}; ask the site whether that is its own"

