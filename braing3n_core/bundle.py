"""The app bundle that Flower carries to every node: a README and settings, no code (docs/adr/0002)."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from braing3n_core.errors import IntegrityError
from braing3n_core.settings import DEFAULTS

_ALLOWED = frozenset({"README.md", "pyproject.toml"})        # and .info/, Flower's own list of what is inside


def write_app(folder: Path, server: str = "server.app:app", client: str = "client.app:app") -> Path:
    """A Flower app without code: both apps are installed modules, ours or a comparison's. Returns its folder."""
    about = metadata("braing3n")
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"{about['Summary']}\n\nNo code in here: every node runs the packages it installed.\n")
    lines = [
        "[build-system]", 'requires = ["setuptools"]', 'build-backend = "setuptools.build_meta"',
        "[project]", 'name = "braing3n"', f'version = "{about["Version"]}"', f"description = {json.dumps(about['Summary'])}",
        'license = "Apache-2.0"', "dependencies = []",
        "[tool.flwr.app]", 'publisher = "braing3n"', 'fab-include = ["README.md"]',
        "[tool.flwr.app.components]", f'serverapp = "{server}"', f'clientapp = "{client}"',
        "[tool.flwr.app.config]", *toml_lines(DEFAULTS),
    ]  # fmt: skip
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def installed_digest() -> str:
    """SHA-256, hex, of the bundle that the installed version makes. Flower's builds are deterministic."""
    from flwr.cli.build import build_fab_from_disk  # noqa: PLC0415 - a second of imports that --help must not pay

    with TemporaryDirectory(prefix="braing3n-") as scratch:
        return hashlib.sha256(build_fab_from_disk(write_app(Path(scratch) / "app"))).hexdigest()


def refuse_code(bundle: bytes) -> None:
    """Raise IntegrityError if the bundle holds anything that could be run, or that could stand before an installed package."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:    # all that zipfile raises
        raise IntegrityError("the app bundle is not a bundle; ask the consortium to start the run again") from error
    if not all(name in _ALLOWED or name.startswith(".info/") for name in names):
        raise IntegrityError("the app bundle carries files of its own; this site runs installed code only")


def toml_lines(values: Mapping[str, str | int | float]) -> list[str]:
    """Key-value lines; JSON's strings and numbers are TOML's."""
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]
