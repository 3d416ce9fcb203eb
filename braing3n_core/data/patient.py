"""One phantom patient over the years: the same head at every visit, what age and disease did to it, and the answer key.

Built on braing3n_core.data.phantom: a patient's visits are a batch whose random fields are shared, so nothing differs between
two visits but years, lesions and the tumour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.data.contrast import CONTRASTS, WHITE
from braing3n_core.data.phantom import (
    AGES,
    DEMENTIA_FROM,
    DEMENTIA_RATE,
    ageing,
    centre_of,
    deformed,
    extent_mm,
    grid_mm,
    lesions_in,
    smooth,
)
from braing3n_core.data.template import Template, template
from braing3n_core.models.presets import Preset
from braing3n_core.plan import Hospital

LABELS = {1: "CSF", 2: "grey matter", 3: "white matter", 4: "lateral ventricle", 5: "white-matter lesion", 6: "oedema",
          7: "tumour core", 8: "tumour rim"}                 # fmt: skip
BIDS_LABELS = {1: 3, 2: 1, 3: 2, 4: 3, 5: 7, 6: 2, 7: 7, 8: 7}  # the common image-derived labels of BIDS 1.10
_CORE_MM = (7.0, 14.0)                                       # radius of a tumour at the first visit
_GROWTH = 0.25                                               # of its radius a year
_OEDEMA = 1.9                                                # reach over the radius
_RIM_MM = 3.0
_PUSH = 0.45                                                 # of the radius: how far tissue gives way
_LESION_GROWTH = 0.08                                        # of the load a year
_YEARLY = 1.6                                                # times the population's ageing, so that a year shows
_NEIGHBOURHOOD_MM = 32.0                                     # of the middle of the ventricles: tumours start no nearer


@dataclass(frozen=True)
class Wishes:
    """What kinds of patients to make."""

    modalities: tuple[str, ...] = ("T1w",)
    visits: int = 1
    years: float = 1.0                                       # between visits
    tumours: float = 0.0                                     # share of patients who have one
    lesions_at_any_age: bool = False                         # True: as many as the oldest may have, whatever the age
    rescanned: bool = True                                   # False: one field and noise at all visits, only anatomy changes


@dataclass(frozen=True)
class Visit:
    """One visit: images on the grid, labels, and the true factors, volumes in ml of the grid."""

    age: float                                               # years
    images: dict[str, Tensor]                                # modality -> (D, H, W) float32, white matter at WHITE
    labels: np.ndarray                                       # (D, H, W) uint8, LABELS
    truth: dict[str, float]                                  # ventricles, lesions, tumour_core, oedema


@dataclass(frozen=True)
class Person:
    """One phantom patient."""

    sex: str
    diagnosis: str
    tumour: bool
    visits: tuple[Visit, ...]


@dataclass(frozen=True)
class _Tissue:
    """(V, D, H, W) each: shares of a voxel, after all that happened to the anatomy."""

    mask: Tensor
    gm: Tensor
    wm: Tensor
    ventricles: Tensor
    lesion: Tensor
    oedema: Tensor
    core: Tensor
    rim: Tensor


def people(
    preset: Preset, count: int, seed: int, hospital: Hospital, wishes: Wishes, heads: Sequence[Template] = ()
) -> Iterator[Person]:
    """`count` patients of one hospital. The same seed gives the same people, whatever modalities are asked for.

    They have the template's head or, in turn, those that are given, all on the preset's grid.
    """
    for number in range(count):
        head = heads[number % len(heads)] if heads else template(preset)
        yield _person(preset, head, torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63), hospital, wishes)


def _person(preset: Preset, head: Template, generator: torch.Generator, hospital: Hospital, wishes: Wishes) -> Person:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    span = AGES[1] - AGES[0]
    later = torch.arange(wishes.visits) * wishes.years                                         # (V,) years since the first
    start = AGES[0] + (span - float(later[-1])) * float(uniform(1))
    male = float(uniform(1) < 0.5)
    dementia = float((uniform(1) < DEMENTIA_RATE) and start > DEMENTIA_FROM)
    load = float(uniform(1)) * (1.0 if wishes.lesions_at_any_age else (start - AGES[0]) / span)
    tumour = bool(uniform(1) < wishes.tumours)
    age = start + later
    tissue = _tissue(preset, head, age, later, male, dementia, load, tumour, hospital, generator)
    images = {name: _image(tissue, name, preset, hospital, generator, wishes.rescanned) for name in sorted(CONTRASTS)}
    ml = math.prod(preset.spacing_mm) / 1000
    visits = [
        Visit(
            age=float(age[v]),
            images={name: images[name][v].clone() for name in wishes.modalities},
            labels=_labels(tissue, v),
            truth={
                "ventricles": float(tissue.ventricles[v].sum()) * ml,
                "lesions": float((tissue.lesion[v] * tissue.wm[v]).sum()) * ml,
                "tumour_core": float((tissue.core[v] + tissue.rim[v]).sum()) * ml,
                "oedema": float(tissue.oedema[v].sum()) * ml,
            },
        )
        for v in range(wishes.visits)
    ]
    return Person("M" if male else "F", "dementia" if dementia else "healthy", tumour, tuple(visits))


def _tissue(
    preset: Preset, head: Template, age: Tensor, later: Tensor, male: float, dementia: float, load: float, tumour: bool,
    hospital: Hospital, generator: torch.Generator,
) -> _Tissue:  # fmt: skip
    count = len(age)

    def shared(draw: Tensor) -> Tensor:
        return draw.expand(count, *draw.shape[1:])

    def normal(_: int, *shape: int) -> Tensor:
        return shared(torch.randn(1, *shape, generator=generator))

    def uniform(_: int, *shape: int) -> Tensor:
        return shared(torch.rand(1, *shape, generator=generator))

    # 1. Ageing: as wide as the population's at the first visit, faster from there on.
    ill = torch.full((count,), dementia)
    grown = age[0] + _YEARLY * later
    dilation = (ageing(grown, ill, hospital) + 0.12 * normal(count)).clamp(-0.25, 1.1)
    male_sex = torch.full((count,), male)
    gm, wm, mask, ventricles = deformed(head, preset, dilation, male_sex, hospital.folding, normal)
    # 2. Lesions: the same places, more of them.
    lesion = lesions_in(wm, head, preset, (load * (1 + _LESION_GROWTH * later)).clamp(max=1.0), uniform)
    # 3. Thinner cortex: what is lost is fluid.
    years = ((grown - AGES[0]) / (AGES[1] - AGES[0])).view(-1, 1, 1, 1)
    gm = gm * (1 - 0.22 * (years + 0.6 * dementia).clamp(0, 1.3))
    centre, radius = _tumour(preset, head, wm[0], later, generator)
    if not tumour:
        empty = torch.zeros_like(wm)
        return _Tissue(mask, gm, wm, ventricles, lesion, empty, empty, empty)
    return _invaded(_Tissue(mask, gm, wm, ventricles, lesion, wm, wm, wm), preset, centre, radius)


def _tumour(
    preset: Preset, head: Template, wm: Tensor, later: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Middle (3,) mm, in white matter away from the ventricles, and radius (V,) mm.

    Drawn for everybody, so that a larger share of tumours changes nobody who has none.
    """
    here = grid_mm(preset)
    far = (here - centre_of(head.csf * head.ventricles, here).view(3, 1, 1, 1)).square().sum(0).sqrt() > _NEIGHBOURHOOD_MM
    places = torch.nonzero((wm > 0.7) & far)
    chosen = places[int(torch.randint(len(places), (1,), generator=generator))]
    first = _CORE_MM[0] + (_CORE_MM[1] - _CORE_MM[0]) * torch.rand(1, generator=generator)
    return here[:, chosen[0], chosen[1], chosen[2]], first * (1 + _GROWTH * later)


def _invaded(before: _Tissue, preset: Preset, centre: Tensor, radius: Tensor) -> _Tissue:
    """Tissue gives way, a core with a rim takes its place, and white matter around it swells."""
    from_centre = grid_mm(preset)[None] - centre.view(1, 3, 1, 1, 1)                           # (1, 3, D, H, W)
    far = from_centre.square().sum(1, keepdim=True).sqrt().clamp(min=1e-3)                     # (1, 1, D, H, W)
    size = radius.view(-1, 1, 1, 1, 1)
    # Backward map: looking nearer to the middle than one is moves tissue outwards; the slope stays below one, so nothing folds.
    push = _PUSH * size * torch.exp(-(far / (1.8 * size)).square())
    target = grid_mm(preset)[None] - from_centre / far * torch.minimum(push, 0.8 * far)
    coordinates = (target / extent_mm(preset).view(1, 3, 1, 1, 1)).flip(1).permute(0, 2, 3, 4, 1)
    maps = torch.stack([before.mask, before.gm, before.wm, before.ventricles, before.lesion], dim=1)
    mask, gm, wm, ventricles, lesion = F.grid_sample(maps, coordinates, align_corners=True, padding_mode="zeros").unbind(1)
    whole = torch.sigmoid((size - far) / 0.8)[:, 0] * mask
    core = torch.sigmoid((size - _RIM_MM - far) / 0.8)[:, 0] * mask
    rest = 1 - whole
    oedema = torch.sigmoid((_OEDEMA * size - far) / 2.0)[:, 0] * wm * rest
    return _Tissue(mask, gm * rest, wm * rest, ventricles * rest, lesion * rest, oedema, core, (whole - core).clamp(0))


def _image(
    tissue: _Tissue, modality: str, preset: Preset, hospital: Hospital, generator: torch.Generator, rescanned: bool
) -> Tensor:
    """(V, D, H, W): what the scanner makes of the tissue; `rescanned`: its field and noise are new at every visit."""
    level, count = CONTRASTS[modality], len(tissue.wm)
    grey = level.grey + hospital.contrast + 0.04 * float(torch.randn(1, generator=generator))
    tumour = tissue.core + tissue.rim
    fluid = (tissue.mask - tissue.gm - tissue.wm - tumour).clamp(0, 1)
    white = tissue.wm * (1 + (level.lesion - 1) * tissue.lesion) + (level.oedema - 1) * tissue.oedema
    signal = level.fluid * fluid + grey * tissue.gm + white + level.core * tissue.core + level.rim * tissue.rim
    drawn = torch.randn(count, 1, 3, 3, 3, generator=generator)
    field = 1 + (0.05 + hospital.bias) * smooth(drawn, preset.shape)[:, 0]
    noise = 0.012 * torch.randn(count, *preset.shape, generator=generator)
    if not rescanned:
        field, noise = field[:1], noise[:1]
    return (WHITE[modality] * (signal * field + noise) * (tissue.mask > 0.5)).clamp(0, 1.3)


def _labels(tissue: _Tissue, v: int) -> np.ndarray:
    """The largest share of each voxel, lesions and tumour before healthy tissue."""
    gm, wm, mask = tissue.gm[v], tissue.wm[v], tissue.mask[v] > 0.5
    tumour = tissue.core[v] + tissue.rim[v]
    fluid = (tissue.mask[v] - gm - wm - tumour).clamp(0, 1)
    labels = torch.where(wm > torch.maximum(fluid, gm), 3, torch.where(gm > fluid, 2, 1))      # argmax is twenty times slower
    labels[(labels == 1) & (tissue.ventricles[v] > 0.3)] = 4
    labels[(labels == 3) & (tissue.lesion[v] > 0.5)] = 5
    labels[(labels == 3) & (tissue.oedema[v] > 0.5 * wm)] = 6
    labels[tissue.core[v] > 0.5] = 7
    labels[(tissue.rim[v] > 0.5) & (tissue.core[v] <= 0.5)] = 8
    return (labels * mask).to(torch.uint8).numpy()
