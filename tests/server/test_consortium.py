"""Who takes part and what was signed: a key opens one door, a plan has the keys of today."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.plan import TrainingPlan
from privacy.errors import KeyRefused
from privacy.signing import PublicKey, SigningKey
from server import plans
from server.consortium import Consortium, Roster

BIN = Path(sys.executable).parent
NORTH, SOUTH = SigningKey.generate().public, SigningKey.generate().public


@pytest.fixture
def consortium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consortium:
    monkeypatch.setattr(plans, "installed_digest", lambda: "b" * 64)
    return Consortium.make(tmp_path / "consortium")


def written(path: Path, *sites: tuple[str, int]) -> Path:
    plans.new(path, "ageing", list(sites))
    return path


def test_two_hospitals_never_share_a_key_or_a_name(consortium: Consortium) -> None:
    roster = consortium.roster().enrolled("north", NORTH)
    with pytest.raises(PlanRefused, match="north's already"):
        roster.enrolled("south", NORTH)
    with pytest.raises(PlanRefused, match="enrolled already"):
        roster.enrolled("north", SOUTH)
    with pytest.raises(PlanRefused):
        roster.enrolled("North Hospital", SOUTH)
    consortium.write_roster(roster.enrolled("south", SOUTH))
    assert set(Consortium.open(consortium.folder).roster().keys) == {"north", "south"}


def test_a_removed_hospital_may_come_back_with_another_key(consortium: Consortium) -> None:
    roster = Roster(keys={}).enrolled("north", NORTH).without("north").enrolled("north", SOUTH)
    assert PublicKey.from_pem(roster.keys["north"].encode()) == SOUTH
    with pytest.raises(PlanRefused, match="not enrolled"):
        roster.without("south")


def test_a_plan_of_hospitals_that_are_not_enrolled_is_not_signed(consortium: Consortium, tmp_path: Path) -> None:
    consortium.write_roster(Roster(keys={}).enrolled("north", NORTH))
    with pytest.raises(PlanRefused, match="first: braing3n-admin enrol south"):
        plans.sign(consortium, written(tmp_path / "plan.toml", ("north", 40), ("south", 60)))


def test_the_plan_to_start_from_holds_together_for_any_number_of_sites(tmp_path: Path) -> None:
    made = TrainingPlan.load(written(tmp_path / "plan.toml", *((f"site-{n}", 100 + n) for n in range(5))))
    assert (len(made.sites), made.federation.quorum, made.rehearsal) == (5, 3, None)
    with pytest.raises(UsageError, match="is there already"):
        plans.new(tmp_path / "plan.toml", "other", [("north", 1)])
    with pytest.raises(PlanRefused):
        plans.new(tmp_path / "bad.toml", "Not A Name", [("north", 1)])
    assert not (tmp_path / "bad.toml").exists()


@pytest.mark.parametrize("word", ["north", "north=", "north=many", "north=-3", "=5", "north=1.5"])
def test_a_site_is_a_name_and_a_whole_number(word: str) -> None:
    with pytest.raises(UsageError, match="write NAME=PATIENTS"):
        plans.declared(word)


def test_a_consortium_s_key_is_made_once_and_kept_from_others(consortium: Consortium) -> None:
    assert consortium.admin_key.stat().st_mode & 0o077 == 0
    with pytest.raises(KeyRefused, match="never replaced"):
        Consortium.make(consortium.folder)


@pytest.mark.slow
def test_the_commands_lead_from_a_folder_to_a_signed_plan(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("six random words are a good one\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "north.pub").write_bytes(NORTH.pem)
    here, secret = ["--consortium", str(tmp_path / "c"), "--json"], ["--passphrase-file", str(tmp_path / "secret")]

    def told(*words: str) -> dict[str, str]:
        done = subprocess.run([BIN / "braing3n-admin", *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    told("init", str(tmp_path / "c"), "--json", *secret)
    assert told("enrol", "north", str(tmp_path / "north.pub"), *here)["key"] == NORTH.fingerprint
    file = str(tmp_path / "plan.toml")
    digest = told("plan", "new", file, "--study", "ageing", "--site", "north=80", "--json")["digest"]
    signed = told("plan", "sign", file, *here, *secret)
    assert signed["plan"] == digest
    assert plans.signed(Consortium.open(tmp_path / "c"), Path(signed["signed"])).plan.digest == digest
    assert told("remove", "north", *here) == {"removed": "north"}
