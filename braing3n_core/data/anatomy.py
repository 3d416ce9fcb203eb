"""Anatomy from label maps, in the template's place under phantoms: heads that differ as people's heads do.

A folder of `*_dseg.nii.gz` in any space, and `dseg.tsv` beside them with the columns that BIDS gives such tables (index, name,
mapping; BIDS 1.10, derivatives, common image-derived labels). Phantoms made of them show the anatomy of the people who were
labelled, so they are as private as the label maps are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from braing3n_core.data.contrast import CONTRASTS
from braing3n_core.data.preprocess import on_grid
from braing3n_core.data.registration import register
from braing3n_core.data.tables import read_table
from braing3n_core.data.template import Template, template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import Preset

TABLE = "dseg.tsv"
_GREY, _WHITE, _FLUID = frozenset({1, 8, 10}), frozenset({2, 7, 9}), frozenset({3})       # of BIDS's common labels
_AROUND_MM = 6.0                                             # how far ventricles may widen, as in the template's region
_LEAST_SHARE = 0.3                                           # of a voxel: less of a lateral ventricle does not widen


def anatomies(folder: Path, preset: Preset) -> list[Template]:
    """Every label map under `folder` on the preset's grid, in the order of their names. Raises DataRefused."""
    files = sorted(folder.rglob("*_dseg.nii*")) if folder.is_dir() else []
    if not files:
        raise DataRefused(f"no *_dseg.nii.gz under {folder}; give the folder that holds the label maps")
    tissues = _tissues(folder / TABLE)
    return [_anatomy(file, tissues, preset) for file in files]


def _tissues(table: Path) -> dict[str, frozenset[int]]:
    """'grey', 'white', 'fluid' and 'lateral' (a part of fluid) -> the numbers that mean it; 'any' -> all that are known."""
    needs = f"{TABLE} beside the label maps needs the columns index, name and mapping (of BIDS: 1 grey, 2 white, 3 CSF)"
    if not table.is_file():
        raise DataRefused(f"{needs}; there is none in {table.parent}")
    header, rows = read_table(table)
    if not {"index", "name", "mapping"} <= set(header):
        raise DataRefused(f"{needs}; it has {', '.join(header)}")
    try:
        known = [(int(row["index"]), row["name"].lower(), int(row["mapping"])) for row in rows]
    except ValueError as error:
        raise DataRefused(f"{needs}; index and mapping are whole numbers ({error})") from error
    found = {name: frozenset(i for i, _, of in known if of in codes)
             for name, codes in (("grey", _GREY), ("white", _WHITE), ("fluid", _FLUID))}     # fmt: skip
    lateral = frozenset(i for i, name, _ in known if "lat" in name and "vent" in name) & found["fluid"]
    if not (found["grey"] and found["white"] and lateral):
        raise DataRefused(f"{needs}; it must name grey and white matter and the lateral ventricles")
    return found | {"lateral": lateral, "any": frozenset(i for i, _, _ in known) | {0}}


def _anatomy(file: Path, tissues: dict[str, frozenset[int]], preset: Preset) -> Template:
    labels, affine = read_volume(file)
    numbers = np.rint(labels).astype(np.int64)
    if not np.abs(labels - numbers).max() < 1e-3:
        raise DataRefused(f"{file.name} holds other than whole numbers; it is no label map")
    if unknown := sorted(set(np.unique(numbers).tolist()) - tissues["any"]):
        raise DataRefused(f"{file.name} has label {unknown[0]}, which {TABLE} does not name; add its row")
    shares = {name: np.isin(numbers, list(tissues[name])).astype(np.float32) for name in ("grey", "white", "fluid", "lateral")}
    level = CONTRASTS["T1w"]
    looks = level.fluid * shares["fluid"] + level.grey * shares["grey"] + shares["white"]
    try:
        place = np.linalg.inv(register(looks, affine)) @ affine
    except DataRefused as error:
        raise DataRefused(f"{file.name}: {error}") from error
    gm, wm, fluid, lateral, t1 = (
        torch.from_numpy(on_grid(part, place, preset)).clamp(0, 1)
        for part in (shares["grey"], shares["white"], shares["fluid"], shares["lateral"], looks)
    )
    mask = gm + wm + fluid > 0.5
    reach = max(1, round(_AROUND_MM / min(preset.spacing_mm)))
    region = binary_dilation((lateral > _LEAST_SHARE).numpy(), iterations=reach)
    return Template(
        affine=template(preset).affine, t1=t1 * mask, gm=gm, wm=wm, csf=(mask.float() - gm - wm).clamp(0, 1), mask=mask,
        ventricles=torch.from_numpy(region), lateral=lateral,
    )  # fmt: skip
