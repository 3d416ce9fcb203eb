"""How alike two brains are once both lie in the template: what a copy of a patient cannot hide. No learned weights.

Skull-stripped scans of one person find each other by plain similarity after registration (arXiv 2602.10043), so that is the
detector. What the public template explains, moved a little, is taken out, since all brains share it; the rest is compared
block by block, each block at the best of 27 shifts, so that a copy that was moved or gently bent is still found.
"""

# p patients' scans, c candidates, s shifts, v voxels of one block, (D H W) voxels

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from braing3n_core.data.contrast import CONTRASTS
from braing3n_core.data.template import Template, template
from braing3n_core.models.presets import Preset
from braing3n_core.plan import T1W

ALLOWANCE = {"FLAIR": 0.04}                                  # of two people are less alike than T1w, and so are copies
FloatArray = NDArray[np.float32]
Block = tuple[slice, slice, slice]
_FINE_MM, _COARSE_MM = 3.0, 8.0                              # Gaussians; between them lies what is one person's and no noise
_BLOCK_MM = 48.0                                             # large enough to be somebody's, small enough to follow a bend
_SAMPLE_MM = 8.0                                             # after the smoothing, neighbours say the same
_SHIFT_MM = 4.0                                              # one step; a copy may lie one step off along each axis
_LEAST_BRAIN = 0.3                                           # part of a block that must be brain
_NOTHING = 1e-6                                              # of signal, where white matter is 0.85
_SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=3))


def likeness(scans: Tensor, candidates: Tensor, preset: Preset, modality: str = T1W) -> FloatArray:
    """(p, c) similarity of each scan (p, 1, D, H, W) to each candidate (c, 1, D, H, W), -1 to 1; 1 is the same image.

    All of one modality. Mean over blocks of the correlation at each block's best shift. Not symmetric to the last digit: the
    candidate is moved.
    """
    mask = template(preset).mask.numpy()
    public = _detail(_shown(template(preset), modality), preset)
    public = np.stack([np.ones_like(public), public, *np.gradient(public)])                       # (k, D, H, W)
    fixed, loose = (np.stack([_detail(volume, preset) for volume in _arrays(many)]) for many in (scans, candidates))
    steps = [max(1, round(_SHIFT_MM / mm)) for mm in preset.spacing_mm]
    total, blocks = np.zeros((len(scans), len(candidates)), np.float32), _blocks(mask, preset, steps)
    for block in blocks:
        inside = mask[block].ravel()
        shared = _shared(public, block, inside)
        ours = _own(_cut(fixed, block, inside), shared)                                           # (p, v)
        theirs = [_own(_cut(loose, _moved(block, steps, shift), inside), shared) for shift in _SHIFTS]
        total += np.max([ours @ moved.T for moved in theirs], axis=0)                             # (s, p, c) -> (p, c)
    return np.asarray(total / len(blocks), np.float32)


def _shown(public: Template, modality: str) -> FloatArray:
    """(D, H, W): the template as a scanner of this modality sees it."""
    if modality == T1W:
        return np.asarray(public.t1.numpy(), np.float32)
    level = CONTRASTS[modality]
    return np.asarray((level.grey * public.gm + public.wm + level.fluid * public.csf).numpy(), np.float32)


def _arrays(volumes: Tensor) -> FloatArray:
    return np.asarray(volumes.detach().cpu().reshape(len(volumes), *volumes.shape[-3:]).numpy(), np.float32)


def _detail(volume: FloatArray, preset: Preset) -> FloatArray:
    fine, coarse = ([mm / side for side in preset.spacing_mm] for mm in (_FINE_MM, _COARSE_MM))
    return np.asarray(gaussian_filter(volume, fine) - gaussian_filter(volume, coarse), np.float32)


def _blocks(mask: NDArray[np.bool_], preset: Preset, steps: list[int]) -> list[Block]:
    """Blocks that are brain enough, thinned, with a step's margin to the grid's edge."""
    cuts = []
    for n, mm, step in zip(mask.shape, preset.spacing_mm, steps, strict=True):
        side, every = min(max(2, round(_BLOCK_MM / mm)), n - 2 * step), max(1, round(_SAMPLE_MM / mm))
        cuts.append([slice(at, at + side, every) for at in range(step, n - step - side + 1, side)])
    return [(x, y, z) for x, y, z in itertools.product(*cuts) if mask[x, y, z].mean() >= _LEAST_BRAIN]


def _moved(block: Block, steps: list[int], shift: tuple[int, ...]) -> Block:
    x, y, z = (slice(c.start + a * b, c.stop + a * b, c.step) for c, a, b in zip(block, shift, steps, strict=True))
    return x, y, z


def _cut(volumes: FloatArray, block: Block, inside: NDArray[np.bool_]) -> FloatArray:
    return volumes[(slice(None), *block)].reshape(len(volumes), -1)[:, inside]


def _shared(public: FloatArray, block: Block, inside: NDArray[np.bool_]) -> FloatArray:
    """(k, v) orthonormal, what all brains share: a constant, the template, and the template moved a little along each axis."""
    return np.asarray(np.linalg.qr(_cut(public, block, inside).T.astype(np.float64))[0].T, np.float32)


def _own(rows: FloatArray, shared: FloatArray) -> FloatArray:
    """(n, v) without what the template explains, of length one; a row with nothing left becomes zero, alike to nothing."""
    rest = rows - (rows @ shared.T) @ shared
    norms = np.linalg.norm(rest, axis=-1, keepdims=True)
    return np.asarray(np.divide(rest, norms, out=np.zeros_like(rest), where=norms > _NOTHING), np.float32)
