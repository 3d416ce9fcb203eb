"""A release as its sites look at it before they approve it: a form to rate images by, and which patients they are most like.

The second page is patients' data: it is written for its owner alone, says so, and belongs in no release.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused, IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.manifest import content, digests_of, root
from braing3n_core.page import script_hash
from braing3n_core.plan import T1W, TrainingPlan
from client.pictures import png, slices
from client.rating import ARTEFACTS, RATINGS
from client.vote import held_against

RATE, NEIGHBOURS = "rate.html", "neighbours.html"
_SHOWN = 100                                                 # pairs on the page of neighbours, the most alike
_PART = (0.22, 0.78)                                         # of each axis: where the brain is
_MIDDLE = (0.5, 0.5)
_SLICES = 7
_PAGES = Environment(autoescape=True, undefined=StrictUndefined)


def look(release: Path, site: str, folder: Path, bids: Path, out: Path, most: int, say: Say) -> list[Path]:
    """Both pages of a release, in `out`. Scans come from the site's cache or are brought to the grid first."""
    found = Release.read(release)
    say(f"{site}: reading scans; held against {len(found.names)} images")
    cohort = load_cohort(bids, found.plan, folder / "cache")
    return [
        write_rating_page(found, out, most),
        write_neighbour_page(found, nearest(found, cohort), found.plan.site(site).name, out),
    ]


@dataclass(frozen=True)
class Release:
    """The images of a finished release folder, with the plan and the threshold that are in it."""

    plan: TrainingPlan
    threshold: float                                         # of braing3n_core.likeness
    content: str                                             # digest that an approval names
    names: tuple[str, ...]
    volumes: Tensor                                          # (n, 1, D, H, W)

    @classmethod
    def read(cls, folder: Path) -> Release:
        """Raises IntegrityError if the folder is no release, or its images are on another grid than its plan's."""
        try:
            plan = TrainingPlan.from_json((folder / "docs" / "plan.json").read_text(encoding="utf-8"))
            rules = tomllib.loads((folder / "docs" / "policy.toml").read_text(encoding="utf-8"))
            threshold = float(rules["copies"]["threshold"])
        except (PlanRefused, OSError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{folder.name} holds no plan and policy of a release; name the finished folder") from error
        found = {name: sorted(folder.glob(f"sub-syn*/**/anat/*_{name}.nii.gz")) for name in plan.modalities}
        paths = [path for one in found.values() for path in one]
        arrays = [read_volume(path)[0] for path in paths]
        if not (arrays and all(one.shape == plan.model.shape for one in arrays)):
            raise IntegrityError(f"{folder.name} has no images on the grid of its plan; get the folder again")
        volumes = torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None]
        modalities = tuple(name for name, one in found.items() for _ in one)
        names = tuple(_name(path, modality) for path, modality in zip(paths, modalities, strict=True))
        return cls(plan, threshold, root(content(digests_of(folder))), names, volumes)

    def sample(self, most: int) -> list[int]:
        """Places of the images to look at: all, or so many drawn by the release's own digest, so that nobody picks them."""
        count = len(self.names)
        return list(range(count)) if count <= most else sorted(Random(self.content).sample(range(count), most))  # noqa: S311


@dataclass(frozen=True)
class Pair:
    """One released image and the scan of this site that is most like it."""

    image: str
    patient: str
    alike: float                                             # on T1w's scale, which the threshold is of
    scan: Tensor                                             # (1, D, H, W); so the next
    made: Tensor


def nearest(release: Release, cohort: Cohort) -> list[Pair]:
    """For each image its nearest scan of any modality, held-out patients' too; the most alike first, as in the vote."""
    best: list[Pair | None] = [None] * len(release.names)
    for held, alike in held_against(cohort.patients, release.volumes, release.plan.model):                   # (scans, images)
        for image, place in enumerate(alike.argmax(0).tolist()):
            found, (owner, volume) = min(float(alike[place, image]), 1.0), held[place]
            before = best[image]
            if before is None or found > before.alike:
                name, patient = release.names[image], cohort.patients[owner].participant
                best[image] = Pair(name, patient, found, volume, release.volumes[image])
    pairs = [pair for pair in best if pair is not None]
    if not pairs:
        raise DataRefused("this site has no scan to hold the images against; name its BIDS folder")
    return sorted(pairs, key=lambda pair: -pair.alike)


def write_rating_page(release: Release, out: Path, most: int) -> Path:
    """<out>/rate.html: a form per image. It is made of released images alone, so its answers may be published."""
    shown = release.sample(most)
    images = [{"name": release.names[i], "sheet": png(slices(_array(release.volumes[i]), _PART, _SLICES))} for i in shown]
    return _written(
        out / RATE, "rate.html.j2", images=images, ratings=RATINGS, artefacts=ARTEFACTS, release=release.content,
        study=release.plan.study, count=len(release.names),
    )  # fmt: skip


def write_neighbour_page(release: Release, pairs: Sequence[Pair], site: str, out: Path) -> Path:
    """<out>/neighbours.html: patients beside what was made after them."""
    rows = [
        {"pair": pair, "above": not pair.alike <= release.threshold, "scan": _cuts(pair.scan), "made": _cuts(pair.made)}
        for pair in pairs[:_SHOWN]
    ]
    return _written(
        out / NEIGHBOURS, "neighbours.html.j2", rows=rows, site=site, study=release.plan.study, threshold=release.threshold,
        count=len(pairs), above=sum(not pair.alike <= release.threshold for pair in pairs),
    )  # fmt: skip


def _name(path: Path, modality: str) -> str:
    """sub-syn0001, sub-syn0001_ses-01, sub-syn0001_FLAIR."""
    parts = [part for part in path.name.split("_") if part[:4] in ("sub-", "ses-")]
    return "_".join([*parts, *([] if modality == T1W else [modality])])


def _array(volume: Tensor) -> np.ndarray:
    return np.asarray(volume[0].numpy())


def _cuts(volume: Tensor) -> str:
    """The three middle slices in a row."""
    return png(np.hstack(np.vsplit(slices(_array(volume), _MIDDLE, 1), 3)))


def _written(path: Path, name: str, **shown: object) -> Path:
    """The page at `path`, for its owner alone from the first byte on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = files("client").joinpath("pages", name).read_text(encoding="utf-8")
    page = _PAGES.from_string(text).render(script_hash=script_hash(text) if "<script>" in text else "", **shown)
    before = os.umask(0o077)
    try:
        write_atomically(path, page.encode())
    finally:
        os.umask(before)
    return path
