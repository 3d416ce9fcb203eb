"""A T1w's brightness made even: its smooth difference from the public template, divided out.

A coil sees what is near it brighter, and every site's coils and protocols differ; the prior's phantoms have little of it. What
is fitted is the scan over the template's T1, in grey and white matter alone, along products of three cosines an axis, too
smooth for anatomy to be taken for it. Robust (Tukey's bisquare), so lesions and misplaced edges have no say. Each scan is
fitted by itself, so nothing of one patient is in another's volume.
"""

from __future__ import annotations

import numpy as np

from braing3n_core.data.template import Template

_WAVES = 3                                                   # an axis: the constant, half a wave, and one as long as the grid
_TISSUE = 0.9                                                # grey and white together: surely no fluid, bone or air
_LEAST = 0.5                                                 # part of that tissue in which the scan must have signal
_MOST = 65_536                                               # voxels fitted to; a finer grid is read with a stride
_RIDGE = 1e-3
_ROUNDS = 4
_REACH = 2 * 1.4826                                          # in median absolute residuals, where a voxel's say ends
_LIMIT = 0.7                                                 # of the log of the field: half to twice as bright


def evened(values: np.ndarray, public: Template) -> np.ndarray:
    """(D, H, W) in the scanner's units, on the template's grid -> the same, as even as the template, as bright overall.

    A scan without signal in half of the tissue is returned as it is, for whoever scales it to refuse.
    """
    t1 = public.t1.numpy()
    tissue = ((public.gm + public.wm).numpy() > _TISSUE) & (t1 > 0)
    where = np.flatnonzero(tissue & (values > 0))
    if not len(where) > _LEAST * np.count_nonzero(tissue):
        return values
    where = where[:: len(where) // _MOST + 1]
    ratio = np.log(values.ravel()[where].astype(np.float64) / t1.ravel()[where])
    axes = [_cosines(side) for side in values.shape]
    places = np.unravel_index(where, values.shape)
    basis = np.einsum("iv,jv,kv->vijk", *(axis[:, place] for axis, place in zip(axes, places, strict=True)))
    weights = _fitted(basis.reshape(len(where), -1), ratio - np.median(ratio)).reshape((_WAVES,) * 3)
    weights[0, 0, 0] = 0.0                                   # how bright it is overall is not the field's
    field = np.einsum("ijk,id,jh,kw->dhw", weights, *axes, optimize=True)
    return np.asarray(values / np.exp(np.clip(field, -_LIMIT, _LIMIT)), np.float32)


def _cosines(side: int) -> np.ndarray:
    """(waves, side): cosines of none, half and a whole period along the axis."""
    return np.cos(np.pi * np.arange(_WAVES)[:, None] * (np.arange(side) + 0.5) / side)


def _fitted(basis: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(V, F), (V,) of median 0 -> (F,): robust ridge regression, reweighted; rounded, so that threads decide no digit.

    What is far from the median has no say from the start: least squares over everything would already have followed it.
    """
    say, found = _say(target), np.zeros(basis.shape[1])
    for _ in range(_ROUNDS):
        weighted = basis * say[:, None]
        found = np.linalg.solve(weighted.T @ basis + _RIDGE * len(target) * np.eye(basis.shape[1]), weighted.T @ target)
        say = _say(target - basis @ found)
    return np.asarray(np.round(found, 6))


def _say(off: np.ndarray) -> np.ndarray:
    """Tukey's bisquare of residuals, (V,) in [0, 1]."""
    reach = _REACH * np.median(np.abs(off)) + 1e-12
    return np.asarray(np.maximum(1 - (off / reach) ** 2, 0) ** 2)
