"""Commands answer at once, and whatever is wrong is one line with its documented exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent / "braing3n-sim"
RECIPES = Path(__file__).parent.parent.parent / "simulations" / "recipes"


def sim(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


def test_help_names_the_exit_codes() -> None:
    assert "5 privacy budget" in " ".join(sim("--help").stdout.split())


def test_the_recipes_that_ship_are_listed_with_their_question() -> None:
    rows = json.loads(sim("list", "--json").stdout)
    names = {Path(row["recipe"]).stem for row in rows}
    assert {"smoke", "demo", "real_three_sites"} <= names
    assert "prior_tiny" not in names
    assert all(row["question"].endswith("?") for row in rows)
    assert rows[0]["question"] in sim("list").stdout


@pytest.mark.slow
def test_phantom_writes_one_bids_folder_per_site(tmp_path: Path) -> None:
    done = sim("phantom", tmp_path / "out", "--patients", "2", "--sites", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "out" / site) for site in ("site-a", "site-b")]
    assert len(list((tmp_path / "out").glob("site-*/sub-*/anat/*_T1w.nii.gz"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run"], 2, "Missing argument"),
        (["run", RECIPES / "smoke.toml"], 2, "Missing option"),
        (["nonsense"], 2, "No such command"),
        (["bench", "estimate", "tinny"], 2, "choose from tiny, small, base"),
        (["probe", "--out", "x", "--data", "site-a=absent"], 3, "site-a: no folder at"),
        (["run", "absent.toml", "--out", "x"], 3, "no plan at absent.toml"),
        (["run", RECIPES / "smoke.toml", "--out", "x", "--epsilon", "0"], 3, "privacy.epsilon"),
        (["run", RECIPES / "smoke.toml", "--out", "x", "--epsilon", "nan"], 3, "privacy.epsilon"),
        (["run", RECIPES / "smoke.toml", "--out", "x", "--epsilon", "-1"], 3, "privacy.epsilon"),
        (["run", RECIPES / "smoke.toml", "--out", "x", "--rounds", "0"], 3, "rounds"),
        (["run", RECIPES / "smoke.toml", "--out", "x", "--data", "site-a=/tmp"], 3, "rehearses with phantoms"),
        (["run", RECIPES / "real_three_sites.toml", "--out", "x"], 3, "no data for site-a, site-b, site-c"),
        (["run", RECIPES / "real_three_sites.toml", "--out", "x", "--data", "site-a"], 2, "write site=DIR"),
        (["run", RECIPES / "real_three_sites.toml", "--out", "x", "--data", "site-z=/tmp"], 3, "no site 'site-z'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_written(
    tmp_path: Path, words: list[str | Path], code: int, said: str
) -> None:
    words = [tmp_path / "x" if word == "x" else word for word in words]
    done = sim(*words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_missing_data_folder_is_refused_by_its_site(tmp_path: Path) -> None:
    words = [f"--data=site-{letter}={tmp_path / 'absent'}" for letter in "abc"]
    done = sim("run", RECIPES / "real_three_sites.toml", "--out", tmp_path / "out", *words)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "site-a: no folder at" in done.stderr
