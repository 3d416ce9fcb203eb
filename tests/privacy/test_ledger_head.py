"""A signed head is the signer's, and a ledger that goes on from it lost nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import LedgerCorrupt, SignatureRefused
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from privacy.ledger_head import LedgerHead, read_head, refuse_rollback, sign_head
from privacy.signing import SigningKey, sealed

KEY = SigningKey.generate()
STEP = SampledGaussian("decoder", 4.0, 0.25, 5)


def head_of(ledger: Ledger) -> LedgerHead:
    return LedgerHead(len(ledger.heads), ledger.head, ledger.epsilon, ledger.delta)


@pytest.mark.parametrize("epsilon", [0.0, 1.25, math.inf])
def test_a_head_reads_back_as_it_was_signed(epsilon: float) -> None:
    head = LedgerHead(3, "a" * 64, epsilon, 1e-5)
    assert read_head(json.loads(json.dumps(sign_head(head, KEY))), KEY.public) == head


def test_another_signer_or_another_document_is_refused() -> None:
    head = LedgerHead(3, "a" * 64, 1.0, 1e-5)
    with pytest.raises(SignatureRefused):
        read_head(sign_head(head, SigningKey.generate()), KEY.public)
    with pytest.raises(SignatureRefused):
        read_head(sealed("text/plain", b"{}", [KEY]), KEY.public)
    with pytest.raises(SignatureRefused, match="other fields"):
        read_head(sealed("application/vnd.braing3n.ledger-head+json", b'{"records": "3"}', [KEY]), KEY.public)


def test_a_ledger_goes_on_from_its_own_head_and_an_older_copy_does_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, 1e-5) as ledger:
        ledger.reserve(STEP, "a", 8.0)
        older = path.read_bytes()
        ledger.reserve(STEP, "b", 8.0)
        kept = head_of(ledger)
        ledger.reserve(STEP, "c", 8.0)
        refuse_rollback(ledger.heads, kept)
    path.write_bytes(older)                                  # whole by itself
    with Ledger(path, 1e-5) as ledger:
        ledger.reserve(STEP, "b", 8.0)                       # and spent again, to the same length
        ledger.reserve(STEP, "b", 8.0)
        with pytest.raises(LedgerCorrupt, match="rolled back"):
            refuse_rollback(ledger.heads, LedgerHead(kept.records + 2, kept.head, 1.0, 1e-5))
    with Ledger(tmp_path / "new.jsonl", 1e-5) as fresh, pytest.raises(LedgerCorrupt, match="replaced"):
        refuse_rollback(fresh.heads, kept)


@given(kept=st.integers(-2, 8), length=st.integers(0, 6))
def test_only_a_prefix_passes(kept: int, length: int) -> None:
    heads = [f"{n:064x}" for n in range(length)]
    signed = LedgerHead(kept, f"{kept - 1:064x}" if kept > 0 else "0" * 64, 0.0, 1e-5)
    if 1 <= kept <= length:
        refuse_rollback(heads, signed)
        return
    with pytest.raises(LedgerCorrupt):
        refuse_rollback(heads, signed)
