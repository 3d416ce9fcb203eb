"""The direction of imports, the homes of third-party names, and habits that do not belong in a library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT: dict[str, set[str]] = {                          # arrows point down; a package may always import itself
    "privacy": set(),
    "braing3n_core": {"privacy"},
    "client": {"braing3n_core", "privacy"},
    "server": {"braing3n_core", "privacy"},
    "simulations": {"client", "server", "braing3n_core", "privacy"},
}
SOLE_IMPORTERS: dict[str, set[str]] = {                      # third-party name -> the only files that may know it exists
    "flwr": {
        "client/answer.py", "client/app.py", "client/clientapp.py", "client/messages.py", "client/node.py",
        "server/app.py", "braing3n_core/bundle.py", "simulations/bench/plain_fedavg.py",
    },
    # The second home times Opacus beside ours, in modes that no guarantee may rest on.
    "opacus": {"privacy/opacus_bridge.py", "simulations/bench/rivals.py"},
    "dp_accounting": {"privacy/witness.py"},
    "cryptography": {"privacy/signing.py", "privacy/randomness.py", "privacy/masking.py", "server/certificates.py"},
    "starlette": {"server/fleet_door.py"},
    "uvicorn": {"server/fleet_door.py"},
    "httpx": {"server/fleet_door.py"},
    "nibabel": {"braing3n_core/data/volume.py"},
    "SimpleITK": {"braing3n_core/data/registration.py", "braing3n_core/data/bias.py"},
    "nilearn": {"braing3n_core/data/template.py"},
    "safetensors": {"braing3n_core/state.py"},
    # Resampling, the rival's networks, and those of MedicalNet.
    "monai": {"braing3n_core/data/preprocess.py", "simulations/baselines/latent_diffusion.py", "simulations/medicalnet.py"},
}
LONGEST_MODULE = 400


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_down_and_third_parties_stay_home(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imports(path)
        if (name in MAY_IMPORT and name not in allowed)
        or (name in SOLE_IMPORTERS and path.relative_to(ROOT).as_posix() not in SOLE_IMPORTERS[name])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_asserts_no_long_modules_no_missing_docstrings(package: str) -> None:
    wrong = []
    for path in modules(package):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = path.relative_to(ROOT)
        wrong += [f"{name}:{node.lineno} asserts" for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        wrong += [f"{name} has {text.count(chr(10))} lines"] if text.count("\n") > LONGEST_MODULE else []
        wrong += [] if ast.get_docstring(tree) else [f"{name} has no docstring"]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_unpickled() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in MAY_IMPORT
        for path in modules(package)
        for line, name in imports(path)
        if name in {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    ]
    assert not wrong, "\n".join(wrong)
