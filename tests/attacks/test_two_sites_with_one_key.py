"""Two hospitals with one key: whoever holds it could speak, and be counted, twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from braing3n_core.errors import PlanRefused
from privacy.signing import PublicKey, SigningKey
from server.consortium import Roster
from tests.consortium import begun


def test_the_roster_takes_a_key_once_however_it_is_written() -> None:
    key = SigningKey.generate().public
    roster = Roster(keys={}).enrolled("north", key)
    rewritten = PublicKey.from_pem(key.pem.replace(b"\n", b"\r\n") + b"\n\n")
    for same in (key, rewritten):
        with pytest.raises(PlanRefused, match="north's already"):
            roster.enrolled("south", same)


def test_no_plan_is_signed_with_one_key_for_two_sites(tmp_path: Path) -> None:
    one = begun(tmp_path)
    pem = one.keys["north"].public.pem.decode()
    with pytest.raises(ValidationError, match="two sites have one key"):
        one.agreement(keys={"north": pem, "south": pem})
    with pytest.raises(ValidationError, match="differ in south"):
        one.agreement(keys={"north": pem})
