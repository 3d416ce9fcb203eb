"""What is shipped: five packages in the wheel, and no code and no data in Flower's bundle."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest

from braing3n_core.bundle import write_app
from braing3n_core.settings import DEFAULTS

ROOT = Path(__file__).parent.parent
PACKAGES = {"server", "client", "braing3n_core", "privacy", "simulations"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel made from tracked and untracked sources, without network and without touching the tree."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place / "dist"), str(source)]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    (path,) = (place / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_s_top_level_is_exactly_the_five_packages(wheel: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert len(top) == len(PACKAGES) + 1


@pytest.mark.parametrize(
    "needed",
    [
        "simulations/recipes/smoke.toml",
        "simulations/recipes/demo.toml",
        "braing3n_core/weights/tiny.safetensors",
        "braing3n_core/weights/tiny.json",
        "server/release/report.html.j2",
        "server/release/certificate.html.j2",
        "server/release/policy.toml",
        "server/release/likeness_reference.json",
        "server/reference.json",
        "privacy/py.typed",
    ],
)
def test_the_wheel_has_what_a_run_reads(wheel: list[str], needed: str) -> None:
    assert needed in wheel


def bundle_of(app: Path) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's and Click's own
        from flwr.cli.build import build_fab_from_disk

        bundle = build_fab_from_disk(app)
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return set(archive.namelist())


def holds_no_code(names: set[str]) -> bool:
    return {"README.md", "pyproject.toml"} <= names and all(
        name in {"README.md", "pyproject.toml"} or name.startswith(".info/") for name in names
    )


@pytest.mark.slow
def test_the_repository_s_bundle_carries_no_code_and_no_data() -> None:
    names = bundle_of(ROOT)
    assert holds_no_code(names), names


def test_the_bundle_made_for_a_run_carries_no_code_and_no_data(tmp_path: Path) -> None:
    names = bundle_of(write_app(tmp_path / "app"))
    assert holds_no_code(names), names


def test_both_bundles_name_the_same_apps_and_the_same_keys(tmp_path: Path) -> None:
    made = tomllib.loads((write_app(tmp_path / "app") / "pyproject.toml").read_text(encoding="utf-8"))
    ours = PYPROJECT["tool"]["flwr"]["app"]
    assert made["tool"]["flwr"]["app"]["components"] == ours["components"]
    assert made["tool"]["flwr"]["app"]["config"] == ours["config"] == DEFAULTS


def test_flower_s_sync_of_the_app_installs_nothing() -> None:
    excluded = {name.lower() for name in PYPROJECT["tool"]["uv"]["exclude-dependencies"]}
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    assert {requirement.split(">")[0].split("=")[0].split("<")[0].strip().lower() for requirement in wanted} <= excluded
