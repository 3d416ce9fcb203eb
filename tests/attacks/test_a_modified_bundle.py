"""The server sends another bundle than the one that was approved, or none that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import IntegrityError
from client.gate import admit
from tests.attacks.bundles import GOOD, approved_with, ask, bundle, digest


def test_the_bundle_that_was_approved_is_let_in(tmp_path: Path) -> None:
    one = approved_with(tmp_path)
    assert admit(one.site, ask(one)) == one.agreement(bundle=digest(GOOD))
    assert admit(one.site, ask(one, kind="query.ready", site=None)).plan == one.plan


@pytest.mark.parametrize("changed", [{"README.md": "changed"}, {"README.md": "no code "}, {"pyproject.toml": ""}])
def test_another_bundle_than_the_approved_one_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    one = approved_with(tmp_path)
    with pytest.raises(IntegrityError, match="another app bundle"):
        admit(one.site, ask(one, bundle(**changed)))


def test_one_changed_byte_of_the_approved_one_is_enough(tmp_path: Path) -> None:
    one = approved_with(tmp_path)
    for place in range(0, len(GOOD), 7):
        changed = bytearray(GOOD)
        changed[place] ^= 1
        with pytest.raises(IntegrityError):
            admit(one.site, ask(one, bytes(changed)))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x00" * 100, GOOD[:50]])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    one = approved_with(tmp_path)
    with pytest.raises(IntegrityError):
        admit(one.site, ask(one, content))


def test_code_that_was_updated_after_the_approval_runs_nothing_until_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = approved_with(tmp_path)
    monkeypatch.setattr("client.approvals.version", lambda name: "9.9.9")
    with pytest.raises(IntegrityError, match=r"here is 9\.9\.9"):
        admit(one.site, ask(one))
