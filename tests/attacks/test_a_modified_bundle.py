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


HEAD = GOOD.index(b"PK\x01\x02")                             # of the first entry in the list of what is inside


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\x00" * 100, GOOD[:50], GOOD[: HEAD + 6] + b"\xff" + GOOD[HEAD + 7 :],
     GOOD[: HEAD + 9] + b"\x08" + GOOD[HEAD + 10 : HEAD + 46] + b"\xff" + GOOD[HEAD + 47 :]],
    ids=["empty", "two bytes", "zeros", "cut", "of a zip to come", "a name that is no text"],
)  # fmt: skip
def test_what_is_no_bundle_is_refused_as_none(tmp_path: Path, content: bytes) -> None:
    one = approved_with(tmp_path)
    with pytest.raises(IntegrityError, match="not a bundle"):
        admit(one.site, ask(one, content))


def test_code_that_was_updated_after_the_approval_runs_nothing_until_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = approved_with(tmp_path)
    monkeypatch.setattr("client.approvals.version", lambda name: "9.9.9")
    with pytest.raises(IntegrityError, match=r"here is 9\.9\.9"):
        admit(one.site, ask(one))
