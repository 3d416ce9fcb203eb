"""The group page: a strip of dots for each measure, a dot opens its scan's page; then what was left out. Self-contained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from braing3n_core.data.scans import MODALITIES, Excluded
from client.measures import MEASURES, cell

_WIDTH, _HEIGHT, _EDGE = 900, 84, 24                         # px of one strip
_PAGES = Environment(loader=PackageLoader("client", "pages"), autoescape=True, undefined=StrictUndefined)


def picture_of(page: Path) -> Path:
    """The small picture that stands for a scan's page; it is there whenever the page of a usable scan is."""
    return page.with_suffix(".png")


def index_page(points: Sequence[Mapping[str, Any]], excluded: Sequence[Excluded], pages: Mapping[str, Path]) -> str:
    """HTML. `points` hold file, modality, page, picture (PNG, base64) and volumes; `pages` the pages of what was left out."""
    left_out = [{"one": one, "page": pages[one.file].name if one.file in pages else ""} for one in excluded]
    return _PAGES.get_template("index.html.j2").render(
        strips=list(_strips(points)), points=points, measures=MEASURES, cell=cell, left_out=left_out,
        width=_WIDTH, height=_HEIGHT, edge=_EDGE,
    )  # fmt: skip


def _strips(points: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One strip for each measure and modality that has one: dots at their ml, spread upwards so that none hides another."""
    for key, name in MEASURES.items():
        for modality in MODALITIES:
            known = [p for p in points if p["modality"] == modality and p["volumes"][key] is not None]
            if known:
                yield _strip(f"{name}, {modality}", key, known)


def _strip(title: str, key: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = sorted(float(p["volumes"][key]) for p in points)
    low, high = values[0], values[-1]
    scale = (_WIDTH - 2 * _EDGE) / ((high - low) or 1.0)
    dots = [
        {
            "x": round(_EDGE + (float(p["volumes"][key]) - low) * scale, 1),
            "y": round(10 + (_HEIGHT - 34) * _spread(p["page"]), 1),
            "page": p["page"],
            "says": f"{p['file']}: {cell(p['volumes'][key])} ml",
        }
        for p in points
    ]
    return {"title": title, "low": cell(low), "high": cell(high), "median": cell(values[len(values) // 2]), "dots": dots}


def _spread(text: str) -> float:
    """In [0, 1), the same for the same scan in every strip and every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
