"""Where an edited discrete token shows: one token of a synthetic person gets another word, and what that changes is measured.

The number is over many tokens, the picture of one. N tokens, (D, H, W) voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from braing3n_core import figures
from braing3n_core.errors import UsageError
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.models.quantizer import FiniteScalar, edit
from simulations.swap import PERSON

_EVERY = 4                                                   # tokens between two that are edited
_BRIGHTEST = 1.0                                             # of the picture; white matter is 0.85


@dataclass(frozen=True)
class Edited:
    """One token with every digit moved by half of its levels; changes are squared and summed over voxels."""

    token: int
    before: Tensor                                           # (D, H, W)
    after: Tensor
    own: float                                               # share of the change inside the token's own cube
    near: float                                              # and within one token of it
    beyond: float                                            # largest change of a voxel more than two tokens away


@torch.no_grad()
def person(model: Brain, seed: int, steps: int) -> Tensor:
    """(1, N, C) latents of one synthetic person."""
    known = {variable.name for variable in model.variables}
    row = {name: value for name, value in PERSON.items() if name in known}
    return model.encode(generate(model, [row], seed, steps=steps, guidance=1.0))


@torch.no_grad()
def edited(model: Brain, latents: Tensor, token: int, levels: int) -> Edited:
    """The person before and after. Raises UsageError for a token or a number of levels there is not."""
    if not 0 <= token < model.tokens:
        raise UsageError(f"token {token} is not one of 0 to {model.tokens - 1}")
    quantizer = FiniteScalar(levels)
    digits = quantizer.read(latents)
    changed = edit(digits, token, (digits[:, token] + levels // 2) % levels)
    before, after = (model.decoder(quantizer.write(each))[0, 0] for each in (digits, changed))
    change, away = (after - before).square(), distance(model, token)
    total = float(change.sum())
    return Edited(
        token, before, after, float(change[away == 0].sum()) / total, float(change[away <= 1].sum()) / total,
        float(change[away > 2].sqrt().max()),
    )  # fmt: skip


def many(model: Brain, latents: Tensor, levels: int) -> list[Edited]:
    """Every fourth token of the person, one at a time."""
    return [edited(model, latents, token, levels) for token in range(0, model.tokens, _EVERY)]


def place(model: Brain, token: int) -> tuple[int, int, int]:
    """(d, h, w): where the token's cube is in the grid of cubes."""
    _, h, w = model.preset.tokens_per_axis
    cube = int(model.decoder.inside[token])
    return cube // (h * w), cube // w % h, cube % w


def distance(model: Brain, token: int) -> Tensor:
    """(D, H, W) tokens between each voxel's cube and the token's, along the axis where they are farthest apart."""
    sides = zip(place(model, token), model.preset.shape, model.preset.patch, strict=True)
    axes = [(torch.arange(side) // cut - here).abs() for here, side, cut in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).amax(0)


def middle(model: Brain) -> int:
    """The token in the middle of the grid."""
    centre = np.array(model.preset.tokens_per_axis) / 2 - 0.5
    places = np.array([place(model, token) for token in range(model.tokens)])
    return int(np.square(places - centre).sum(1).argmin())


def told(one: Edited, all_: Sequence[Edited]) -> list[str]:
    """The numbers for a person."""
    own, near, beyond = ([getattr(each, name) for each in all_] for name in ("own", "near", "beyond"))
    return [
        f"token {one.token}: {one.own:.1%} of the squared change in its own cube, {one.near:.1%} within one token",
        f"{len(all_)} tokens, one at a time: {np.mean(own):.1%} in the own cube (least {min(own):.1%}), "
        f"{np.mean(near):.1%} within one token (least {min(near):.1%})",
        f"beyond two tokens no voxel changes by more than {max(beyond):g}, white matter being 0.85",
    ]


def picture(model: Brain, one: Edited) -> bytes:
    """PNG: before, after and the difference in three planes through the token, whose cube is outlined."""
    figure = figures.blank(7.2, 7.4, 120)
    cuts, cube = model.preset.patch, place(model, one.token)
    change = one.after - one.before
    scale = float(change.abs().max())
    for row, name in enumerate(figures.PLANES):
        across, up = (axis for axis in range(3) if axis != row)
        corner = (cube[across] * cuts[across] - 0.5, cube[up] * cuts[up] - 0.5)
        for column, (title, volume) in enumerate((("before", one.before), ("after", one.after), ("difference", change))):
            axes = figure.add_subplot(3, 3, 3 * row + column + 1)
            shown = volume.select(row, cube[row] * cuts[row] + cuts[row] // 2).T.numpy()
            low, high, colours = (-scale, scale, "RdBu_r") if volume is change else (0.0, _BRIGHTEST, "gray")
            axes.imshow(shown, origin="lower", cmap=colours, vmin=low, vmax=high)
            axes.add_patch(Rectangle(corner, cuts[across], cuts[up], fill=False, color="#e69f00", lw=1.2))
            axes.set(xticks=[], yticks=[], ylabel=name if column == 0 else None, title=title if row == 0 else None)
    figure.suptitle(f"token {one.token}: {one.near:.1%} of the squared change within one token of it", fontsize=11)
    return figures.png(figure)
