"""App bundles as a server may send them."""

from __future__ import annotations

import hashlib
import io
import zipfile


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
