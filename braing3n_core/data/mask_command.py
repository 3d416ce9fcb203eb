"""A brain mask from the site's own tool: any program that reads one NIfTI file and writes another."""

from __future__ import annotations

import shlex
import subprocess

import numpy as np

from braing3n_core.data.volume import read_volume, write_volume
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.scratch import scratch

_LONGEST_S = 900.0


def words_of(command: str) -> list[str]:
    """The command's words. Raises UsageError unless it says where the scan and the mask go."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--brain-mask-command cannot be read ({error}); check its quotes") from error
    if not ("{scan}" in command and "{mask}" in command and words):
        raise UsageError("--brain-mask-command: name {scan} and {mask}, for example 'hd-bet -i {scan} -o {mask}'")
    return words


def masked_by(command: str, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(D, H, W) with zero where the command's mask is zero. The command runs without a shell, with files of its own.

    Raises DataRefused if it fails, takes longer than 15 minutes, or writes no mask of the scan's shape.
    """
    with scratch("braing3n-mask-") as folder:
        scan, mask = folder / "scan.nii.gz", folder / "mask.nii.gz"
        write_volume(scan, array, affine)
        words = [word.replace("{scan}", str(scan)).replace("{mask}", str(mask)) for word in words_of(command)]
        try:
            subprocess.run(  # noqa: S603 - what the site's operator asked for, word by word
                words, check=True, timeout=_LONGEST_S, stdin=subprocess.DEVNULL, capture_output=True
            )
        except subprocess.TimeoutExpired as error:
            raise DataRefused(f"the brain mask command took longer than {_LONGEST_S:.0f} s; try it by hand") from error
        except (OSError, subprocess.CalledProcessError) as error:
            code = getattr(error, "returncode", None)
            why = f"exit code {code}" if code is not None else "it cannot be started"
            raise DataRefused(f"the brain mask command failed ({why}); try it by hand on this scan") from error
        found, _ = read_volume(mask)
    if found.shape != array.shape:
        raise DataRefused(f"the brain mask command made a mask of {found.shape} for a scan of {array.shape}; keep the grid")
    return np.where(found > 0, array, np.float32(0))
