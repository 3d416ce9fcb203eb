"""A coil's smooth field goes; anatomy, lesions and the overall brightness stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.data import evenness
from braing3n_core.data.evenness import evened
from braing3n_core.data.phantom import phantoms
from braing3n_core.data.preprocess import Method, Placed, scaled, volume_of
from braing3n_core.data.template import template
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital

TINY = PRESETS["tiny"]
PUBLIC = template(TINY)
HEAD = next(phantoms(TINY, 1, 3, Hospital(name="x")))[0][0].numpy().astype(np.float32)
TISSUE = ((PUBLIC.gm + PUBLIC.wm) > 0.9).numpy() & (HEAD > 0)


def coil(x: float, y: float, z: float) -> np.ndarray:
    """A field that is brighter towards one side of each axis, and in the middle of the second."""
    at = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in HEAD.shape), indexing="ij"))
    field: np.ndarray = np.exp(x * at[0] + y * (1 - at[1] ** 2) + z * at[2]).astype(np.float32)
    return field


def unevenness(values: np.ndarray, beside: np.ndarray) -> float:
    """Standard deviation of the log ratio in the tissue: zero if the two differ by one factor."""
    return float(np.log(values[TISSUE] / beside[TISSUE]).std())


@pytest.mark.slow
@given(x=st.floats(-0.3, 0.3), y=st.floats(-0.3, 0.3), z=st.floats(-0.3, 0.3))
@settings(max_examples=15, deadline=None)
def test_a_scan_under_another_coil_becomes_nearly_the_same_scan(x: float, y: float, z: float) -> None:
    bare, seen = evened(HEAD, PUBLIC), evened(HEAD * coil(x, y, z), PUBLIC)
    assert unevenness(seen, bare) <= 0.3 * unevenness(coil(x, y, z), np.ones_like(HEAD)) + 1e-3


@pytest.mark.slow
@given(factor=st.floats(1e-3, 1e5))
@settings(max_examples=15, deadline=None)
def test_the_scanner_s_units_do_not_matter(factor: float) -> None:
    assert np.allclose(evened(HEAD * np.float32(factor), PUBLIC), evened(HEAD, PUBLIC) * np.float32(factor), rtol=1e-4)


def test_it_is_as_even_as_the_template_afterwards() -> None:
    t1 = PUBLIC.t1.numpy()
    assert unevenness(evened(t1 * coil(0.3, 0.2, -0.3), PUBLIC), t1) < 0.2 * unevenness(coil(0.3, 0.2, -0.3), np.ones_like(t1))
    assert unevenness(evened(t1, PUBLIC), t1) < 1e-5, "the template itself stays"


@pytest.mark.parametrize(("left", "sick"), [(0.5, "a lesion of 64 mm"), (0.3, "a slab where the coil saw little")])
def test_what_is_dark_in_one_place_is_not_taken_for_the_field(left: float, sick: str) -> None:
    """Plain least squares follows either: intact tissue beside it would come out up to twice as bright."""
    voxels = np.stack(np.meshgrid(*(np.arange(side) for side in HEAD.shape), indexing="ij"))
    inside = np.square(voxels - np.reshape([16, 28, 30], (3, 1, 1, 1))).sum(0) < 8**2 if "lesion" in sick else voxels[2] < 14
    assert 0.05 < (inside & TISSUE).sum() / TISSUE.sum() < 0.12
    noisy = (HEAD * np.exp(0.12 * np.random.default_rng(0).standard_normal(HEAD.shape))).astype(np.float32)
    healthy, found = (evened(np.where(inside, part * noisy, noisy).astype(np.float32), PUBLIC) for part in (1.0, left))
    ratio = found[TISSUE] / healthy[TISSUE]
    assert np.abs(np.log(ratio[~inside[TISSUE]])).max() < 0.1
    assert float(np.median(ratio[inside[TISSUE]])) == pytest.approx(left, abs=0.03)


def test_a_fine_grid_is_read_with_a_stride_to_the_same_field(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = HEAD * coil(0.2, -0.2, 0.3)
    whole = evened(seen, PUBLIC)
    monkeypatch.setattr(evenness, "_MOST", int(TISSUE.sum()) // 3)
    assert unevenness(evened(seen, PUBLIC), whole) < 0.01


def test_without_signal_there_is_nothing_to_even() -> None:
    empty = np.where(np.arange(HEAD.shape[1])[None, :, None] < 20, HEAD, 0)
    assert np.array_equal(evened(empty, PUBLIC), empty)
    assert not evened(np.zeros_like(HEAD), PUBLIC).any()
    assert not evened(HEAD, PUBLIC)[HEAD == 0].any()


def test_t1w_alone_are_held_against_the_template_s_t1() -> None:
    seen = (900 * HEAD * coil(0.3, 0, 0)).astype(np.float32)
    placed = Placed(seen, seen, PUBLIC.affine, 1.0, "before", False)
    t1w, flair = (volume_of(placed, Method(TINY, modality=modality)) for modality in ("T1w", "FLAIR"))
    assert np.array_equal(t1w, scaled(evened(seen, PUBLIC), PUBLIC))
    assert np.array_equal(flair, scaled(seen, PUBLIC, "FLAIR"))
