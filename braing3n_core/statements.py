"""What is said about a release, as in-toto statements: one subject with its digest, one predicate with its type.

Formats: in-toto Statement v1, test-result v0.1 and SVR v0.2 (github.com/in-toto/attestation). The types of our own are URNs,
because nothing is fetched from them.
"""

from __future__ import annotations

from collections.abc import Mapping

from braing3n_core.errors import IntegrityError
from braing3n_core.strict_json import canonical, parsed

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY = "https://in-toto.io/attestation/svr/v0.2"
MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
CERTIFICATE = "urn:braing3n:privacy-certificate:v1"
APPROVAL = "urn:braing3n:site-approval:v1"
LEDGER = "urn:braing3n:site-ledger:v1"
REVOCATION = "urn:braing3n:revocation:v1"


def statement(kind: str, predicate: Mapping[str, object], name: str, digest: str) -> bytes:
    """The bytes that are signed: `predicate` of type `kind` about the subject `name` with this SHA-256."""
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": kind,
            "predicate": dict(predicate),
        }
    )


def read(payload: bytes, what: str) -> tuple[str, str, Mapping[str, object]]:
    """(type, SHA-256 of the subject, predicate) of a statement. Raises IntegrityError unless it is one about one subject."""
    match parsed(payload, what):
        case {
            "_type": str(kind),
            "subject": [{"digest": {"sha256": str(digest)}}],
            "predicateType": str(predicate_type),
            "predicate": dict(predicate),
        } if kind == STATEMENT:
            return predicate_type, digest, predicate
        case _:
            raise IntegrityError(f"{what} is not an in-toto statement about one subject; get the release again")
