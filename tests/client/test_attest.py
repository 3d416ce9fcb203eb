"""A site puts its name to its own ledger as it stands, and to nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from braing3n_core.errors import DataRefused, IntegrityError
from braing3n_core.manifest import content, digests_of, root
from braing3n_core.statements import APPROVAL, LEDGER, PAYLOAD, read
from client.attest import CERTIFICATE, Check, approve, ledger_statement
from privacy.errors import SignatureRefused
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from privacy.signing import SigningKey, opened

PLAN = "a" * 64
CHECK = Check("data steward", 24, "acceptable")


def ledger_in(folder: Path, rounds: int = 1) -> str:
    with Ledger(folder / "ledger.jsonl", 1e-5) as ledger:
        for number in range(rounds):
            ledger.reserve(SampledGaussian("decoder", 2.0, 0.1, 3), f"{PLAN}/decoder/{number}", math.inf)
        return ledger.head


def release_with(folder: Path, head: str) -> Path:
    (folder / "docs").mkdir(parents=True)
    (folder / CERTIFICATE).write_text(json.dumps({"sites": [{"site": "north", "head": head}]}))
    (folder / "README.md").write_text("hello")
    return folder


def test_every_record_is_signed_under_its_head(tmp_path: Path) -> None:
    head, key = ledger_in(tmp_path, rounds=3), SigningKey.generate()
    envelope = ledger_statement(tmp_path, "north", PLAN, key)
    kind, subject, said = read(opened(envelope, PAYLOAD, [key.public]), "it")
    assert (kind, subject, said["site"], said["plan"]) == (LEDGER, head, "north", PLAN)
    assert [record["kind"] for record in said["records"]] == ["opened", "reserved", "reserved", "reserved"]  # type: ignore[attr-defined]
    with pytest.raises(SignatureRefused):
        opened(envelope, PAYLOAD, [SigningKey.generate().public])


def test_an_approval_is_about_this_folder_and_this_ledger(tmp_path: Path) -> None:
    head, key = ledger_in(tmp_path / "site"), SigningKey.generate()
    release = release_with(tmp_path / "release", head)
    envelope = approve(release, tmp_path / "site", "north", key, CHECK)
    kind, subject, said = read(opened(envelope, PAYLOAD, [key.public]), "it")
    assert (kind, subject) == (APPROVAL, root(content(digests_of(release))))
    assert (said["ledger_head"], said["reviewer_role"], said["images_looked_at"]) == (head, "data steward", 24)


def test_a_certificate_that_states_an_older_ledger_is_never_approved(tmp_path: Path) -> None:
    head, key = ledger_in(tmp_path / "site"), SigningKey.generate()
    release = release_with(tmp_path / "release", head)
    ledger_in(tmp_path / "site", rounds=2)
    with pytest.raises(IntegrityError, match="does not state the ledger of north as it stands"):
        approve(release, tmp_path / "site", "north", key, CHECK)


def test_a_site_without_a_ledger_has_nothing_to_put_its_name_to(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no ledger can be read"):
        ledger_statement(tmp_path, "north", PLAN, SigningKey.generate())
    (tmp_path / "ledger.jsonl").write_bytes(b"")
    with pytest.raises(DataRefused, match="is empty"):
        ledger_statement(tmp_path, "north", PLAN, SigningKey.generate())
