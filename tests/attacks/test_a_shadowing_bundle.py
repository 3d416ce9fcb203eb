"""A bundle brings packages of our own or our libraries' names, to be imported before the installed, audited ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from braing3n_core.errors import IntegrityError
from client.gate import admit
from client.join import write_gate
from tests.attacks.bundles import approved_with, ask, bundle
from tests.consortium import begun


@pytest.mark.parametrize(
    "more", [{"privacy__mechanism_py": ""}, {"client__app_py": "evil"}, {"torch_py": ""}, {"client": ""}, {"data.json": ""},
             {"info__x_py": ""}]
)  # fmt: skip
def test_files_beside_the_readme_are_refused_even_if_somebody_approved_them(tmp_path: Path, more: dict[str, str]) -> None:
    shadowing = bundle(**more)
    one = approved_with(tmp_path, shadowing)
    with pytest.raises(IntegrityError, match="installed code only"):
        admit(one.site, ask(one, shadowing))


@pytest.mark.slow
def test_nothing_of_a_bundle_is_unpacked_imported_or_even_named_by_the_wrapper(tmp_path: Path) -> None:
    """In a working directory full of packages of our names, the wrapper still finds the installed ones."""
    pytest.importorskip("flwr", reason="the wrapper stands before Flower's own program")
    site = begun(tmp_path).site
    gate = write_gate(site.folder, site.key)
    assert gate.stat().st_mode & 0o777 == 0o700
    hostile = tmp_path / "cwd"
    for name in ("client", "privacy", "braing3n_core", "torch"):
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [gate, "--help"], cwd=hostile, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(hostile)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Run a Flower ClientApp" in done.stdout
    assert sys.executable in gate.read_text()
