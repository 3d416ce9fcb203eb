"""N4 takes a coil's field out of a brain and leaves the background where it was."""

from __future__ import annotations

import numpy as np
import pytest

from braing3n_core.data.bias import without_field

MM = np.array([4.0, 4.0, 4.0])


def ball() -> tuple[np.ndarray, np.ndarray]:
    """Two tissues in a ball, and a field that doubles from one side to the other."""
    here = np.stack(np.meshgrid(*[np.linspace(-1, 1, 36)] * 3, indexing="ij"))
    radius = np.sqrt((here**2).sum(0))
    tissue = np.where(radius < 0.5, 1.0, 0.6) * (radius < 0.85)
    return tissue.astype(np.float32), np.exp(0.35 * here[0]).astype(np.float32)


@pytest.mark.slow
def test_a_field_is_taken_out() -> None:
    tissue, field = ball()
    found = without_field(tissue * field, MM)
    before, after = (np.std(np.log(image[tissue == 1])) for image in (tissue * field, found))
    assert after < 0.5 * before
    assert not found[tissue == 0].any()


@pytest.mark.slow
def test_the_same_scan_never_gives_other_bits() -> None:
    tissue, field = ball()
    assert np.array_equal(without_field(tissue * field, MM), without_field(tissue * field, MM))
