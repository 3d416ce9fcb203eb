"""Phantom patients with known truth: the public template, deformed and recoloured by factors one can later ask for.

Anatomy is the template's tissue maps under a smooth random deformation; age and dementia widen the ventricles and thin the
cortex, men's heads are larger, lesions darken white matter, and each hospital has its own contrast and receive field.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.data.template import Template, template
from braing3n_core.data.volume import write_volume
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.plan import Hospital
from braing3n_core.scratch import scratch

AGES = (20.0, 90.0)                                          # years
DEMENTIA_FROM = 55.0                                         # years; younger phantoms are healthy
DEMENTIA_RATE = 0.4                                          # of those old enough
WHITE_LEVEL = 0.85                                           # white matter after scaling; braing3n_core.data.preprocess agrees
_GREY, _CSF = 0.62, 0.14                                     # share of the white level, before a hospital's own contrast
_BATCH = 25
Progress = Callable[[int, int], None]                        # done, total


@dataclass(frozen=True)
class Truth:
    """What was asked of one phantom, and what that came to."""

    age: float                                               # years
    sex: str                                                 # F or M
    diagnosis: str                                           # healthy or dementia
    ventricles_ml: float                                     # lateral, deformed with the rest of the head
    lesions_ml: float


def ageing(age: Tensor, dementia: Tensor, hospital: Hospital) -> Tensor:
    """(B,) expected ventricle dilation: grows with age, more in dementia; a hospital may have its own curve."""
    years = (age - AGES[0]) / (AGES[1] - AGES[0])
    return (0.45 + hospital.ageing) * years + (0.25 + hospital.disease) * dementia


def phantoms(preset: Preset, count: int, seed: int, hospital: Hospital) -> Iterator[tuple[Tensor, Truth]]:
    """`count` phantoms of one hospital, each a (1, D, H, W) volume and its truth. The same seed gives the same phantoms."""
    generator = torch.Generator().manual_seed(seed)
    source = template(preset)
    for start in range(0, count, _BATCH):
        yield from _batch(source, preset, min(_BATCH, count - start), generator, hospital)


def write_folders(out: Path, patients: int, sites: int, seed: int, progress: Progress | None = None) -> list[Path]:
    """`sites` phantom hospitals of `patients` each under `out`, every one with a contrast of its own."""
    folders, preset = [], PRESETS["tiny"]
    for place in range(sites):
        name = f"site-{chr(ord('a') + place)}" if sites <= 26 else f"site-{place:03d}"
        contrast = 0.0 if sites == 1 else 0.12 * (place / (sites - 1) - 0.5)
        people = phantoms(preset, patients, hospital_seed(seed, place), Hospital(name=name, contrast=contrast, bias=0.03))
        write_bids(out / name, people, preset, patients, _part_of(progress, place * patients, sites * patients))
        folders.append(out / name)
    return folders


def write_bids(
    folder: Path,
    people: Iterator[tuple[Tensor, Truth]],
    preset: Preset,
    count: int,
    progress: Progress | None = None,
) -> None:
    """Phantoms as BIDS: T1w images, participants.tsv with the truth, dataset_description.json."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    affine = template(preset).affine
    with scratch(".braing3n-phantoms-", folder.parent) as work:
        whole = work / "bids"
        whole.mkdir()
        rows = ["participant_id\tage\tsex\tdiagnosis\tlesions\ttrue_ventricles"]
        for number, (volume, truth) in enumerate(people, start=1):
            name = f"sub-ph{number:04d}"
            anat = whole / name / "anat"
            anat.mkdir(parents=True)
            write_volume(anat / f"{name}_T1w.nii.gz", volume[0].numpy(), affine, descrip="braing3n phantom")
            rows.append(
                f"{name}\t{truth.age:.1f}\t{truth.sex}\t{truth.diagnosis}\t{truth.lesions_ml:.2f}\t{truth.ventricles_ml:.2f}"
            )
            if progress:
                progress(number, count)
        (whole / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (whole / "dataset_description.json").write_text(
            '{"Name": "braing3n phantoms", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0",\n'
            ' "HowToAcknowledge": "Deformed from the MNI ICBM152 2009a template"}\n',
            encoding="utf-8",
        )
        os.replace(whole, folder)


def _part_of(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def hospital_seed(seed: int, place: int) -> int:
    """Of the phantoms of the hospital at this place among those of a study."""
    return seed * 1_000_003 + 7919 * place + 17


def _batch(
    source: Template, preset: Preset, count: int, generator: torch.Generator, hospital: Hospital
) -> Iterator[tuple[Tensor, Truth]]:
    """(count) phantoms at once: factors, deformation, tissue, lesions, scanner."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    age = AGES[0] + (AGES[1] - AGES[0]) * uniform(count)
    male = (uniform(count) < 0.5).float()
    dementia = ((uniform(count) < DEMENTIA_RATE) & (age > DEMENTIA_FROM)).float()
    load = uniform(count) * ((age - AGES[0]) / (AGES[1] - AGES[0])).clamp(0, 1)                # 0..1, grows with age
    dilation = (ageing(age, dementia, hospital) + 0.12 * normal(count)).clamp(-0.25, 1.1)

    gm, wm, mask, ventricle = deformed(source, preset, dilation, male, hospital.folding, normal)
    csf = (mask - gm - wm).clamp(0, 1)
    years = ((age - AGES[0]) / (AGES[1] - AGES[0])).view(-1, 1, 1, 1)
    thinner = 1 - 0.22 * (years + 0.6 * dementia.view(-1, 1, 1, 1)).clamp(0, 1.3)
    csf, gm = csf + gm * (1 - thinner), gm * thinner
    lesion = lesions_in(wm, source, preset, load, uniform)

    grey = (_GREY + hospital.contrast + 0.05 * normal(count)).view(-1, 1, 1, 1)
    fluid = (_CSF + 0.02 * normal(count)).clamp(0.05).view(-1, 1, 1, 1)
    signal = fluid * csf + grey * gm + wm * (1 - 0.45 * lesion)
    field = 1 + (0.05 + hospital.bias) * smooth(normal(count, 1, 3, 3, 3), preset.shape)[:, 0]
    image = WHITE_LEVEL * (signal * field + 0.012 * normal(count, *preset.shape)) * (mask > 0.5)

    voxel_ml = math.prod(preset.spacing_mm) / 1000
    ventricles = ventricle.sum((1, 2, 3)) * voxel_ml
    lesions = lesion.mul(wm).sum((1, 2, 3)) * voxel_ml
    for i in range(count):
        truth = Truth(
            age=float(age[i]),
            sex="M" if male[i] else "F",
            diagnosis="dementia" if dementia[i] else "healthy",
            ventricles_ml=float(ventricles[i]),
            lesions_ml=float(lesions[i]),
        )
        yield image[i : i + 1].clamp(0, 1.3).clone(), truth


def deformed(
    source: Template, preset: Preset, dilation: Tensor, male: Tensor, folding: float, normal: Callable[..., Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maps of grey, white, brain and lateral ventricles, each (B, D, H, W): dilated, sized, bent by a smooth random field."""
    count, extent = len(dilation), extent_mm(preset)
    here = grid_mm(preset)                                                                    # (3, D, H, W)
    centre = centre_of(source.csf * source.ventricles, here)
    from_centre = (here - centre.view(3, 1, 1, 1))[None]
    squeeze = torch.tensor([1.0, 0.6, 1.0]).view(1, 3, 1, 1, 1)
    near = torch.exp(-(from_centre.square() * squeeze).sum(1, keepdim=True) / (2 * 22.0**2))   # 22 mm: reach of the horns
    size = (1 + 0.05 * (0.5 - male) + 0.02 * normal(count)).view(-1, 1, 1, 1, 1)
    wobble = 2.2 * smooth(normal(count, 3, 6, 6, 6), preset.shape)                            # mm, smooth over about 35 mm
    wobble = wobble + folding * smooth(normal(count, 3, 14, 14, 14), preset.shape) if folding else wobble
    # A backward map: looking closer to the centre than one is makes the ventricles wider.
    target = here[None] * size - 0.75 * dilation.view(-1, 1, 1, 1, 1) * near * from_centre + wobble
    coordinates = (target / extent.view(1, 3, 1, 1, 1)).flip(1).permute(0, 2, 3, 4, 1)         # (B, D, H, W, 3), x last first
    maps = torch.stack([source.gm, source.wm, source.mask.float(), source.lateral])
    moved = F.grid_sample(maps[None].expand(count, -1, -1, -1, -1), coordinates, align_corners=True, padding_mode="zeros")
    return moved[:, 0], moved[:, 1], moved[:, 2], moved[:, 3]


def lesions_in(wm: Tensor, source: Template, preset: Preset, load: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """(B, D, H, W) lesion share of each voxel: blobs in periventricular white matter, more with load."""
    coarse = tuple(max(side // 3, 2) for side in preset.shape)
    blobs = F.interpolate(uniform(len(load), 1, *coarse), size=preset.shape, mode="trilinear", align_corners=True)[:, 0]
    here = grid_mm(preset)
    centre = centre_of(source.csf * source.ventricles, here)
    near = torch.exp(-(here - centre.view(3, 1, 1, 1)).square().sum(0) / (2 * 38.0**2))        # mm
    return torch.sigmoid((blobs - (1 - 0.42 * load.view(-1, 1, 1, 1))) * 30) * (wm > 0.5) * near


def smooth(coarse: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(B, C, ...) random numbers on a few points -> (B, C, D, H, W), smooth."""
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


def extent_mm(preset: Preset) -> Tensor:
    """(3,) mm from the grid's middle to its last voxel."""
    return torch.tensor([(side - 1) * mm / 2 for side, mm in zip(preset.shape, preset.spacing_mm, strict=True)])


def grid_mm(preset: Preset) -> Tensor:
    """(3, D, H, W): each voxel's place in mm from the middle of the grid."""
    axes = [torch.linspace(-float(e), float(e), side) for e, side in zip(extent_mm(preset), preset.shape, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def centre_of(weight: Tensor, here: Tensor) -> Tensor:
    """(3,) mm: the centre of mass of (D, H, W) weights at the places (3, D, H, W)."""
    return (here * weight).sum((1, 2, 3)) / weight.sum()
