"""Real scans, where they are at hand: MRI of several sites in BIDS, beside the repository and never in it."""

from __future__ import annotations

import shutil
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"
SITES = ("site-a", "site-b", "site-c")


def some_patients(site: str, out: Path, count: int) -> Path:
    """The first `count` patients of a real site as a BIDS folder of their own below `out`."""
    folder = out / site
    folder.mkdir(parents=True)
    shutil.copy(DATA / site / "participants.tsv", folder)
    for home in sorted((DATA / site).glob("sub-*"))[:count]:
        shutil.copytree(home, folder / home.name)
    return folder
