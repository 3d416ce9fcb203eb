"""What is wrong is named with how to fix it; what a header holds is never shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from client.doctor import examine
from client.findings import Finding, table
from client.init import init
from tests.client.studies import study

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids") / "north"
    write_bids(folder, phantoms(TINY, 3, 1, Hospital(name="north")), TINY, 3)
    for path in folder.rglob("*_T1w.nii.gz"):                # phantoms say so in their headers; a hospital's need not
        image = nib.load(path)
        image.header["descrip"] = b""
        nib.save(image, path)
    return folder


@pytest.fixture
def site(master: Path, tmp_path: Path) -> Path:
    shutil.copytree(master, tmp_path / "bids")
    settings, _ = init(tmp_path / "site", "north", tmp_path / "bids")
    settings.write_text(settings.read_text().replace("smallest_cohort = 20", "smallest_cohort = 3"))
    return tmp_path / "site"


def found(site: Path, **more: object) -> dict[str, Finding]:
    return {one.check: one for one in examine(site, None, more.get("plan"))}  # type: ignore[arg-type]


def scan(site: Path, name: str = "sub-ph0001") -> Path:
    return site.parent / "bids" / name / "anat" / f"{name}_T1w.nii.gz"


def test_a_sound_site_is_told_so(site: Path) -> None:
    checks = found(site)
    wrong = [one for one in checks.values() if one.state != "ok" and one.check not in ("disk", "machine", "server")]
    assert not wrong
    assert set(checks) == {
        "settings", "key", "server", "scans", "readable", "duplicates", "patients", "geometry", "orientation", "units",
        "personal data", "skull-stripped", "participants.tsv", "cohort", "disk", "machine", "GPU", "versions",
    }  # fmt: skip
    assert "3 patients, 0 with several visits" in checks["patients"].result


def test_a_name_in_a_header_is_reported_and_never_shown(site: Path) -> None:
    image = nib.load(scan(site))
    image.header["descrip"], image.header["db_name"] = b"DOE^JANE 19610203", b"JANE"
    nib.save(image, scan(site))
    one = found(site)["personal data"]
    assert one.state == "look"
    assert "descrip non-empty in 1" in one.result
    assert not [part for part in ("DOE", "JANE", "1961") if part in table(examine(site, None, None))]


def test_every_fault_of_the_data_is_named(site: Path) -> None:
    shutil.copy(scan(site), scan(site, "sub-ph0002"))
    image = nib.load(scan(site, "sub-ph0003"))
    head = np.full((60, 60, 60), 1.0, np.float32)
    head[:2] = 0
    image = nib.Nifti1Image(head, np.diag([5.0, 5.0, 5.0, 1.0]))
    nib.save(image, scan(site, "sub-ph0003"))
    (scan(site).parent / "sub-ph0001_run-2_T1w.nii.gz").write_bytes(b"")
    checks = found(site)
    assert "sub-ph0001/anat/sub-ph0001_T1w.nii.gz = sub-ph0002" in checks["duplicates"].result
    assert "1 have more signal than a brain" in checks["skull-stripped"].result
    assert "1 do not say mm" in checks["units"].result
    assert "over 4.5 mm" in checks["geometry"].result
    assert "1 are not" in checks["readable"].result
    assert all(checks[name].fix for name in ("duplicates", "skull-stripped", "units", "geometry", "readable"))


def test_a_key_that_others_may_read_is_refused(site: Path) -> None:
    os.chmod(site / "keys" / "site.pem", 0o644)
    assert found(site)["key"].state == "refused"


def test_a_cohort_below_the_policy_or_the_plan_is_told(site: Path) -> None:
    plan = study()
    assert "the plan declares" in found(site, plan=plan)["cohort"].result
    settings = site / "site.toml"
    settings.write_text(settings.read_text().replace("smallest_cohort = 3", "smallest_cohort = 4"))
    assert found(site)["cohort"].state == "refused"


@pytest.mark.parametrize("crime", ["no table", "no column", "no folder", "no toml", "bad toml"])
def test_what_will_not_work_ends_with_code_three(site: Path, crime: str) -> None:
    rows = site.parent / "bids" / "participants.tsv"
    match crime:
        case "no table":
            rows.unlink()
        case "no column":
            rows.write_text(rows.read_text().replace("diagnosis", "dx"))
        case "no folder":
            shutil.rmtree(site.parent / "bids")
        case "no toml":
            (site / "site.toml").unlink()
        case "bad toml":
            (site / "site.toml").write_text("[site")
    refused = [one for one in examine(site, None, None) if one.state == "refused"]
    assert refused
    assert all(one.fix for one in refused)


@pytest.mark.slow
def test_the_command_speaks_to_programs_and_to_people(site: Path) -> None:
    shutil.rmtree(site.parent / "bids")
    program = [sys.executable, "-c", "from client.cli import main; main()", "doctor", "--site", str(site)]
    told = subprocess.run([*program, "--json"], check=False, capture_output=True, text=True)
    assert told.returncode == 3
    assert {"check", "state", "result", "fix"} == set(json.loads(told.stdout)[0])
    assert "Traceback" not in told.stderr
