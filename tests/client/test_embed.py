"""One row a scan, the same row whoever asks, and a scan that cannot be used costs itself alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.embedding import embed, regions
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior
from client.embed import chosen, write_embeddings
from tests.small import SMALL, small_brain

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed") / "bids"
    write_bids(folder, phantoms(TINY, 3, 5, Hospital(name="x")), TINY, 3)
    visit = folder / "sub-ph0001" / "ses-late" / "anat"
    visit.mkdir(parents=True)
    (folder / "sub-ph0001" / "anat" / "sub-ph0001_T1w.nii.gz").rename(visit / "sub-ph0001_ses-late_T1w.nii.gz")
    (folder / "sub-ph0002" / "anat" / "sub-ph0002_T1w.nii.gz").write_bytes(b"not an image")
    return folder


def test_every_usable_scan_is_a_row_of_its_own_numbers(bids: Path, tmp_path: Path) -> None:
    said: list[str] = []
    model = read_prior(SHIPPED / "tiny.safetensors")
    assert write_embeddings(bids, tmp_path / "e.tsv", model, "mean", "none", said.append) == (2, 1)
    header, *rows = [line.split("\t") for line in (tmp_path / "e.tsv").read_text().splitlines()]
    assert header == ["participant_id", "session", "modality", *(f"e{i}" for i in range(TINY.encoder_width))]
    assert [row[:3] for row in rows] == [["sub-ph0001", "ses-late", "T1w"], ["sub-ph0003", "n/a", "T1w"]]
    volumes = torch.stack([volume for volume, _ in phantoms(TINY, 3, 5, Hospital(name="x"))])
    expected = embed(model, volumes)
    for row, place in zip(rows, (0, 2), strict=True):
        assert torch.tensor([float(number) for number in row[3:]]).allclose(expected[place], atol=2e-3)
    assert any("sub-ph0002_T1w.nii.gz" in line for line in said)


@pytest.mark.slow
def test_the_command_writes_what_the_function_does(bids: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "braing3n-site", "embed", "--data", bids, "--registration", "none", "--out"]
    done = subprocess.run([*command, tmp_path / "e.tsv"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 scans, 1 left out" in done.stdout
    with pytest.raises(UsageError, match="make it first"):
        write_embeddings(bids, tmp_path / "no" / "e.tsv", small_brain(), "mean", "none", lambda line: None)


def test_what_nobody_can_use_is_refused_and_nothing_is_written(bids: Path, tmp_path: Path) -> None:
    only_broken = tmp_path / "bids"
    (only_broken / "sub-a" / "anat").mkdir(parents=True)
    (only_broken / "sub-a" / "anat" / "sub-a_T1w.nii.gz").write_bytes(b"")
    with pytest.raises(DataRefused, match="not one of 1 scans"):
        write_embeddings(only_broken, tmp_path / "e.tsv", small_brain(), "mean", "none", lambda line: None)
    assert not (tmp_path / "e.tsv").exists()
    with pytest.raises(UsageError, match="--pool sum: choose from mean, regions, none"):
        chosen(None, "sum", "none")


def test_regions_cover_every_token_on_a_grid_that_is_no_cube() -> None:
    model = small_brain()
    region = regions(model)
    assert len(region) == model.tokens
    assert 0 <= int(region.min()) <= int(region.max()) < 27
    volumes = torch.rand(2, 1, *SMALL.shape)
    pooled = embed(model, volumes, "regions").reshape(2, -1, SMALL.encoder_width)
    sizes = torch.stack([(region == each).sum() for each in region.unique()])
    mean = (pooled * sizes[:, None]).sum(1) / model.tokens
    assert torch.allclose(mean, embed(model, volumes, "mean"), atol=1e-5)
    assert embed(model, volumes, "none").shape == (2, model.tokens * SMALL.encoder_width)
