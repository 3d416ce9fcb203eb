"""The road that works on phantoms works on raw T1w scans of three real sites: two rounds of it, to a release."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import DATA, SITES, some_patients

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "simulations" / "recipes" / "real_three_sites.toml"
PATIENTS = 8
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="no real scans in ../shared/data")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    place = tmp_path_factory.mktemp("real")
    words = [f"--data={site}={some_patients(site, place / 'hospitals', PATIENTS)}" for site in SITES]
    command = [Path(sys.executable).parent / "braing3n-sim", "run", RECIPE, "--out", place / "out", "--rounds", "1", *words]
    return place / "out", subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)


def test_three_real_sites_train_and_a_release_comes_out(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = run
    assert done.returncode == 0, done.stderr
    assert len(list((out / "release").glob("sub-*/anat/*.nii.gz"))) == 24
    summary = json.loads((out / "summary.json").read_text())
    assert [row["site"] for row in summary["privacy"]] == list(SITES)
    assert all(0 < row["epsilon"] <= 8 for row in summary["privacy"])


def test_held_out_real_patients_are_rebuilt_far_better_than_by_the_mean_volume(
    run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    rows = json.loads((run[0] / "summary.json").read_text())["quality"]
    rebuilt = next(row for row in rows if row["name"] == "reconstruction of held-out patients")
    assert rebuilt["private"] >= rebuilt["baseline"] + 3
    assert rebuilt["non_private"] is None                    # a comparison without privacy is for rehearsals


def test_no_name_of_a_patient_leaves_a_site(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = run
    names = {home.name for site in SITES for home in sorted((DATA / site).glob("sub-*"))[:PATIENTS]}
    left = [done.stdout, done.stderr, (out / "flower.log").read_text(), (out / "rounds.jsonl").read_text()]
    left += [path.read_text() for path in (out / "release").rglob("*") if path.suffix in (".json", ".tsv", ".html")]
    assert names
    assert not [name for name in names if any(name in text for text in left)]
