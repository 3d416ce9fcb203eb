"""Every tokenizer is held against the same people, and against knowing nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from braing3n_core.prior import SHIPPED, read_prior, write_prior
from simulations import reconstruction


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped prior, but for a decoder that no longer hears its latents at their places."""
    model = read_prior(SHIPPED / "tiny.safetensors")
    model.decoder.linear.weight.zero_()
    folder = tmp_path_factory.mktemp("priors") / "deaf"
    folder.mkdir()
    return write_prior(model, "tiny", {"study": "deaf"}, folder)


def test_priors_are_told_apart_by_what_they_keep(deaf: Path, tmp_path: Path) -> None:
    shipped = shutil.copytree(SHIPPED, tmp_path / "whole") / "tiny.safetensors"
    lines = reconstruction.compared([shipped, deaf], tmp_path / "out", 8, [], lambda _: None)
    rows = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert [(row["people"], row["arm"]) for row in rows] == [
        (people, arm) for people in ("phantoms", "other scanner") for arm in ("mean volume", "whole", "deaf")
    ]
    assert len(lines) == len(rows) + 1
    assert all(row["low"] <= row["psnr"] <= row["high"] and 0 < row["ms_ssim"] <= 1 for row in rows)
    for mean, whole, without in (rows[:3], rows[3:]):
        assert whole["psnr"] > mean["psnr"] + 4, "latents keep what the mean volume cannot know"
        assert without["psnr"] < whole["psnr"] - 2
        assert abs(whole["effect"]) < abs(without["effect"]), "whose tissues lie where they lay"
        assert whole["tissue"] in ("brain", "gm", "wm", "csf", "ventricles")
        assert [row["numbers"] for row in (mean, whole, without)] == [0, whole["numbers"], whole["numbers"]]


def test_two_folders_of_one_name_would_be_one_arm(tmp_path: Path) -> None:
    paths = [shutil.copytree(SHIPPED, tmp_path / place / "same") / "tiny.safetensors" for place in "ab"]
    with pytest.raises(UsageError, match="of one name; call the folders apart"):
        reconstruction.compared(paths, tmp_path / "out", 8, [], lambda _: None)
