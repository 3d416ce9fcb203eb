"""Every tokenizer is held against the same people, and against knowing nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from braing3n_core.data.phantom import phantoms
from braing3n_core.errors import UsageError
from braing3n_core.models.presets import PRESETS
from braing3n_core.morphometry import measures
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior, write_prior
from simulations import reconstruction
from tests.small import small_brain


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
        assert all(row["tissue"] in ("brain", "gm", "wm", "csf", "ventricles") for row in (mean, whole, without))
        assert abs(whole["off"]) < abs(without["off"]), "tissues lie where they lay, or further off"
        assert [row["numbers"] for row in (mean, whole, without)] == [0, whole["numbers"], whole["numbers"]]


def test_a_tissue_s_place_is_told_in_deviations_of_the_people() -> None:
    brighter = torch.stack([volume for volume, _ in phantoms(PRESETS["tiny"], 8, 1, Hospital(name="public"))])
    true = measures(brighter, PRESETS["tiny"])["csf_ml"]
    found = reconstruction._moved(brighter, brighter[:1].expand(8, -1, -1, -1, -1), PRESETS["tiny"])["csf"]
    assert found == pytest.approx((true[0] - true.mean()) / true.std(ddof=1)), "what is alike has no deviation of its own"


def test_a_site_cannot_stand_for_phantoms(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a site cannot be called 'phantoms' here"):
        reconstruction.compared([], tmp_path / "out", 8, [f"phantoms={tmp_path}"], lambda _: None)
    assert not (tmp_path / "out").exists()


def test_weights_cannot_stand_for_the_table_s_own_rows(tmp_path: Path) -> None:
    path = shutil.copytree(SHIPPED, tmp_path / "tokens") / "tiny.safetensors"
    with pytest.raises(UsageError, match="a folder called 'tokens'"):
        reconstruction.compared([path], tmp_path / "out", 8, [], lambda _: None)


def test_real_scans_are_of_one_grid_and_priors_of_another_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "_models", lambda _: {"small": small_brain()})
    with pytest.raises(UsageError, match="grid of preset tiny, and the weights are of another"):
        reconstruction.compared([], tmp_path / "out", 8, [f"site-a={tmp_path}"], lambda _: None)


def test_two_folders_of_one_name_would_be_one_arm(tmp_path: Path) -> None:
    paths = [shutil.copytree(SHIPPED, tmp_path / place / "same") / "tiny.safetensors" for place in "ab"]
    with pytest.raises(UsageError, match="of one name; call the folders apart"):
        reconstruction.compared(paths, tmp_path / "out", 8, [], lambda _: None)
