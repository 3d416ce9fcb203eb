"""App bundles as a server may send them, and a hospital that approved one of them with the study's plan."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from client.approvals import approve
from client.gate import PINNED, Asked
from tests.consortium import Study, begun

HONEST: dict[str, object] = {**PINNED, "plan": "/srv/plan.json", "out-dir": "/srv/out"}


def bundle(**more: str) -> bytes:
    """A bundle without code, and whatever is added to it; `__` in a name stands for a slash."""
    files = {"README.md": "no code", "pyproject.toml": "[project]", ".info/CONTENT": ""} | {
        name.replace("__", "/").replace("_py", ".py"): text for name, text in more.items()
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


GOOD = bundle()


def approved_with(place: Path, content: bytes = GOOD) -> Study:
    """A study whose plan north approved, with this bundle."""
    one = begun(place)
    approve(one.site, one.sent(one.agreement(bundle=digest(content))), one.keys["north"], digest(content))
    return one


def ask(
    one: Study, content: bytes = GOOD, kind: str = "train.round", site: str | None = "north",
    config: Mapping[str, object] = HONEST,
) -> Asked:  # fmt: skip
    """What came from the server; without a word of it, an honest round."""
    return Asked(kind, one.plan.digest, site, content, config)
