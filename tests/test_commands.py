"""What holds for every command: help is instant because it loads nothing heavy, and names the exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
HEAVY = ("torch", "numpy", "scipy", "nibabel", "monai", "flwr", "opacus", "matplotlib", "SimpleITK", "pydantic")
COMMANDS = {"braing3n-sim": "simulations.cli", "braing3n-site": "client.cli", "braing3n-admin": "server.cli"}
_LOADED = """
import sys
from {module} import app
try:
    app(["--help"], prog_name="x")
except SystemExit:
    pass
print(*sorted(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("module", COMMANDS.values())
def test_help_loads_nothing_heavy(module: str) -> None:
    words = [sys.executable, "-c", _LOADED.format(module=module, heavy=HEAVY)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.split() == []
    assert "Usage" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_exit_codes(command: str) -> None:
    done = subprocess.run([BIN / command, "--help"], capture_output=True, text=True, timeout=120, check=True)
    assert "5 privacy budget" in " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_command_is_a_usage_error(command: str) -> None:
    done = subprocess.run([BIN / command, "nonsense"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
