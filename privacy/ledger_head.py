"""The ledger's head, signed: what a site gives away or keeps elsewhere, so that an older copy of its ledger is found out.

A chain shows that a record was edited, never that the whole folder was put back to last week's copy: that copy is whole. A
head kept where the copy does not reach (another machine, the consortium, paper) shows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from privacy.errors import LedgerCorrupt, SignatureRefused
from privacy.signing import Envelope, PublicKey, SigningKey, opened, sealed

PAYLOAD_TYPE: Final = "application/vnd.braing3n.ledger-head+json"


@dataclass(frozen=True)
class LedgerHead:
    """What a ledger said at one time: its last record, how many there were, and what they spent."""

    records: int
    head: str                                                # SHA-256 of the last record, hex
    epsilon: float
    delta: float


def sign_head(head: LedgerHead, key: SigningKey) -> Envelope:
    """A DSSE envelope of `head`. Law: read_head(sign_head(h, key), key.public) == h."""
    fields = asdict(head) | {"epsilon": head.epsilon if math.isfinite(head.epsilon) else "infinite"}
    return sealed(PAYLOAD_TYPE, json.dumps(fields, sort_keys=True, allow_nan=False).encode(), [key])


def read_head(envelope: object, signer: PublicKey) -> LedgerHead:
    """What `signer` signed. Raises SignatureRefused if it is not theirs, not of this type, or was changed."""
    payload = opened(envelope, PAYLOAD_TYPE, [signer])
    match json.loads(payload):
        case {"records": int(records), "head": str(head), "epsilon": float() | "infinite" as spent, "delta": float(delta)}:
            return LedgerHead(records, head, math.inf if spent == "infinite" else spent, delta)
        case _:
            raise SignatureRefused("the signed ledger head has other fields than this version knows; ask for it again")


def refuse_rollback(heads: Sequence[str], kept: LedgerHead) -> None:
    """Raise LedgerCorrupt unless the ledger with these `heads`, one for each record, goes on from the `kept` one.

    Guarantee: a ledger that passes has every record that it had when `kept` was signed, in the same order and unchanged.
    Records added and taken away again since then are not seen: keep a fresh head after each run.
    """
    if not (1 <= kept.records <= len(heads) and heads[kept.records - 1] == kept.head):
        raise LedgerCorrupt(
            f"the ledger is not a continuation of the signed one of {kept.records} records: it was rolled back or replaced; "
            "restore the newest copy, and count what was spent since as spent"
        )
