"""A site's own brain mask: any program, no shell; what goes wrong in it leaves out the scan and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.data.mask_command import masked_by, words_of
from braing3n_core.errors import DataRefused, UsageError

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
BRIGHT = (
    "import nibabel, numpy, sys; image = nibabel.load(sys.argv[1]); values = image.get_fdata(); "
    "nibabel.save(nibabel.Nifti1Image((values > 5).astype(numpy.uint8), image.affine), sys.argv[2])"
)


def values() -> np.ndarray:
    return np.arange(1000, dtype=np.float32).reshape(10, 10, 10) / 100


def test_what_the_mask_leaves_out_is_zero() -> None:
    found = masked_by(f"{sys.executable} -c '{BRIGHT}' {{scan}} {{mask}}", values(), AFFINE)
    assert np.array_equal(found, np.where(values() > 5, values(), 0))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false {scan} {mask}", "exit code 1"),
        ("/nowhere/bet {scan} {mask}", "cannot be started"),
        ("true {scan} {mask}", "not there"),
        ("cp /etc/hostname {mask} {scan}", "exit code 1"),
    ],
)
def test_a_command_that_fails_leaves_out_the_scan(command: str, words: str) -> None:
    with pytest.raises(DataRefused, match=words):
        masked_by(command, values(), AFFINE)


def test_a_shell_is_never_asked(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(DataRefused):
        masked_by(f"false {{scan}} {{mask}}; touch {trace}", values(), AFFINE)
    assert not trace.exists()


@pytest.mark.parametrize("command", ["", "bet", "bet {scan}", "bet {mask}", "bet '{scan} {mask}"])
def test_a_command_that_does_not_say_where_things_go_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="brain-mask-command"):
        words_of(command)
