"""A site's folder: settings that can be read, a key nobody else can, and nothing that was there is ever replaced."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from client.init import init
from privacy.signing import PublicKey, SigningKey


def test_settings_can_be_read_and_name_what_was_said(tmp_path: Path) -> None:
    settings, fingerprint = init(tmp_path / "site", "north", tmp_path / 'a "quoted" \\ folder')
    found = tomllib.loads(settings.read_text(encoding="utf-8"))
    assert found["site"]["name"] == "north"
    assert found["site"]["data"] == str(tmp_path / 'a "quoted" \\ folder')
    assert found["policy"]["epsilon"] > 0
    assert PublicKey.load(tmp_path / "site" / "keys" / "site.pem.pub").fingerprint == fingerprint


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    init(tmp_path / "site", "north", None)
    key = tmp_path / "site" / "keys" / "site.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert SigningKey.load(key).public == PublicKey.load(key.with_name("site.pem.pub"))


def test_a_site_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    settings, _ = init(tmp_path, "north", None)
    before = settings.read_bytes(), (tmp_path / "keys" / "site.pem").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        init(tmp_path, "south", None)
    assert (settings.read_bytes(), (tmp_path / "keys" / "site.pem").read_bytes()) == before


@pytest.mark.parametrize("name", ["", "North", "../up", "a b", "1st", "x" * 40])
def test_a_name_that_no_plan_could_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        init(tmp_path, name, None)
    assert not list(tmp_path.iterdir())
