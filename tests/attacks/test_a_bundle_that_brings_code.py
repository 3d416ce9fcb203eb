"""A server ships code: its own, or packages that stand before the audited, installed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import IntegrityError
from client.approvals import approve
from client.gate import PINNED, Asked, admit
from tests.attacks.bundles import GOOD, bundle, digest
from tests.consortium import Study, begun

CONFIG = {**PINNED, "plan": "/srv/plan.json", "out-dir": "/srv/out"}


def approved_with(tmp_path: Path, content: bytes) -> Study:
    one = begun(tmp_path)
    approve(one.site, one.sent(one.agreement(bundle=digest(content))), one.keys["north"], digest(content))
    return one


def ask(one: Study, content: bytes, kind: str = "train.round") -> Asked:
    return Asked(kind, one.plan.digest, "north", content, CONFIG)


def test_the_bundle_that_was_approved_is_let_in(tmp_path: Path) -> None:
    one = approved_with(tmp_path, GOOD)
    assert admit(one.site, ask(one, GOOD)) == one.agreement(bundle=digest(GOOD))
    assert admit(one.site, Asked("query.ready", one.plan.digest, None, GOOD, CONFIG)).plan == one.plan


@pytest.mark.parametrize(
    "more", [{"privacy__mechanism_py": ""}, {"client__app_py": "evil"}, {"torch_py": ""}, {"client": ""}, {"data.json": ""},
             {"info__x_py": ""}]
)  # fmt: skip
def test_files_beside_the_readme_are_refused_even_if_somebody_approved_them(tmp_path: Path, more: dict[str, str]) -> None:
    shadowing = bundle(**more)
    one = approved_with(tmp_path, shadowing)
    with pytest.raises(IntegrityError, match="installed code only"):
        admit(one.site, ask(one, shadowing))


def test_another_bundle_than_the_approved_one_is_refused(tmp_path: Path) -> None:
    one = approved_with(tmp_path, GOOD)
    other = bundle(**{"README.md": "changed"})
    with pytest.raises(IntegrityError, match="another app bundle"):
        admit(one.site, ask(one, other))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x00" * 100, GOOD[:50]])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    one = approved_with(tmp_path, GOOD)
    with pytest.raises(IntegrityError):
        admit(one.site, ask(one, content))


def test_code_that_was_updated_after_the_approval_runs_nothing_until_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = approved_with(tmp_path, GOOD)
    monkeypatch.setattr("client.approvals.version", lambda name: "9.9.9")
    with pytest.raises(IntegrityError, match=r"here is 9\.9\.9"):
        admit(one.site, ask(one, GOOD))
