"""A FLAIR shows the lesions that are asked for: while it is made, it is led to where its decoder shows as many.

The condition alone hardly brings them: a few bright voxels are little of a brain, and a flow learns little of them. So at every
step the image in which the flow would end is decoded, what is brighter on it than its tissue is added up, and the latents are
moved along the gradient of that sum, by a part of what is missing. The flow goes on from there and makes of it what images
look like. Loss guidance (Song et al., ICML 2023, PMLR 202), with the gradient where the flow ends and not through its network
(He et al., arXiv 2311.16424); docs/adr/0017. A function of what was generated and asked: no patient, no privacy cost.
"""

# B people, N tokens, C channels

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor

from braing3n_core.models.brain import Brain, Condition
from braing3n_core.plan import Continuous

SHOWN_ON: Final = "FLAIR"                                    # where hospitals look for them, and `tissues` measures them
_VARIABLE: Final = ("lesions", "ml")
_WHITE: Final = 0.4                                          # of white matter by the template's map: where they are looked for
_TISSUE: Final = 0.7                                         # of the middle of what is inside: below it is fluid, or outside
_FROM: Final = 1.5                                           # robust deviations above tissue: brighter is lesion
_WHOLE: Final = 0.23                                         # of tissue's brightness above that: a whole voxel of lesion
_SOFT: Final = 0.06                                          # of the way from none to whole
_PART: Final = 0.5                                           # of what is missing, that a step makes up for
_FAR: Final = 6.0                                            # norm of the largest move of one person's latents
_FLAT: Final = 1e-12                                         # norm of a slope that says nothing

# Chosen on the tiny preset's 4 mm voxels: finer grids want other numbers, of `_WHOLE` and of the voxels of a mean above all.


def asked(model: Brain, conditions: Sequence[Mapping[str, Condition]]) -> Tensor:
    """(B,) ml of lesions of each row; NaN where none are asked for, or the model has no variable `lesions` in ml."""
    known = any(isinstance(v, Continuous) and (v.name, v.unit) == _VARIABLE for v in model.variables)
    values = [row.get(_VARIABLE[0]) if known else None for row in conditions]
    return torch.tensor([math.nan if value is None else float(value) for value in values])


@dataclass(frozen=True)
class Lead:
    """Moves latents of a FLAIR to where as many lesions show as each person is to have: (B, N, C) -> (B, N, C).

    `wanted` is (B,) ml. A person with NaN is left alone, and so is one whose load has no finite slope. A step decodes the
    others and goes back through the decoder: about four times a decoding.
    """

    model: Brain
    wanted: Tensor

    def __call__(self, latents: Tensor) -> Tensor:
        """One step: `_PART` of the way to the load that is wanted, and not farther than `_FAR`."""
        led = self.wanted.isfinite()
        if not bool(led.any()):
            return latents
        with torch.inference_mode(False), torch.enable_grad():
            here = latents[led].clone().requires_grad_()
            load = shown(self.model, here)
            (slope,) = torch.autograd.grad(load.sum(), here)                                   # rows do not see each other
        missing = self.wanted[led] - load.detach()
        steep = slope.flatten(1).norm(dim=1)
        step = (_PART * missing / steep.clamp_min(_FLAT)).clamp(-_FAR, _FAR)
        move = step[:, None, None] * (slope / steep.clamp_min(_FLAT)[:, None, None])
        return latents.index_put((led,), latents[led] + move.nan_to_num(0.0, 0.0, 0.0))


def shown(model: Brain, latents: Tensor) -> Tensor:
    """(B, N, C) latents of a FLAIR -> (B,) ml of lesions on what they decode to, with a gradient."""
    white = model.decoder.style.tissue[1] > _WHITE
    voxels = lesioned(model.decode(latents, SHOWN_ON), model.decoder.brain > 0, white)
    return voxels * (math.prod(model.preset.spacing_mm) / 1000)


def lesioned(volumes: Tensor, brain: Tensor, white: Tensor) -> Tensor:
    """(B, 1, D, H, W) of any unit, (D, H, W) bool where a brain and where white matter can be -> (B,) voxels of lesion.

    Spots of a few voxels count and single ones hardly: brightness is the mean of 3 x 3 x 3. From `_FROM` robust deviations
    above the middle of tissue a voxel begins to count, and the brighter, the more, up to the whole voxel.
    """
    level, spread = _tissue(volumes.detach(), brain)
    bright = F.avg_pool3d(volumes, 3, stride=1, padding=1)[:, 0, white]                        # (B, voxels)
    over = (bright - (level + _FROM * spread)[:, None]) / (_WHOLE * level)[:, None]
    share: Tensor = (_SOFT * F.softplus(over / _SOFT)).clamp(max=1.0)
    return share.sum(1)


def _tissue(volumes: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) brightness in the middle of tissue, and its robust deviation (1.4826 times the median absolute one)."""
    inside = volumes[:, 0, brain]
    tissue = inside.where(inside > _TISSUE * inside.median(1, keepdim=True).values, torch.nan)
    level = tissue.nanmedian(1).values
    return level, 1.4826 * (tissue - level[:, None]).abs().nanmedian(1).values
