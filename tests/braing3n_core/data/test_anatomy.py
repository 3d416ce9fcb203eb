"""Label maps as anatomy: the head of a phantom is the one that was labelled, and a table that cannot be right is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.anatomy import TABLE, anatomies
from braing3n_core.data.answers import write_hospitals
from braing3n_core.data.patient import Wishes
from braing3n_core.data.tables import write_table
from braing3n_core.data.volume import read_volume, write_volume
from braing3n_core.errors import DataRefused
from braing3n_core.metrics import dice
from braing3n_core.models.presets import PRESETS
from tests.braing3n_core.test_tissues import DATA, GREY, VENTRICLES, WHITE, real

TINY = PRESETS["tiny"]
ROWS = [("0", "background", "0"), ("1", "grey", "1"), ("2", "white", "2"), ("3", "Left Lateral Ventricle", "3")]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms' own answer key."""
    (folder,) = write_hospitals(tmp_path_factory.mktemp("key"), TINY, 2, 1, 3, Wishes())
    return folder / "derivatives" / "labels"


@pytest.mark.slow
def test_a_phantoms_own_key_gives_its_head_again(labels: Path) -> None:
    one, two = anatomies(labels, TINY)
    for head, file in zip((one, two), sorted(labels.rglob("*_dseg.nii.gz")), strict=True):
        key = torch.from_numpy(read_volume(file)[0])
        assert dice(head.mask, key > 0) > 0.95
        assert dice(head.lateral > 0.5, key == 4) > 0.7
        assert float((head.gm + head.wm + head.csf).max()) <= 1 + 1e-5
    assert dice(one.wm > 0.5, two.wm > 0.5) < dice(one.wm > 0.5, one.wm > 0.4), "two people are two people"


@pytest.mark.slow
def test_phantoms_have_these_heads_in_turn(labels: Path, tmp_path: Path) -> None:
    (folder,) = write_hospitals(tmp_path, TINY, 3, 1, 3, Wishes(), labels=labels)
    made = [read_volume(file)[0] for file in sorted(folder.glob("sub-*/anat/*_T1w.nii.gz"))]
    first, second = (head.mask.numpy() for head in anatomies(labels, TINY))

    def outside(volume: np.ndarray, mask: np.ndarray) -> float:
        return float(((volume > 0) ^ mask).mean())

    assert outside(made[0], first) < outside(made[0], second)
    assert outside(made[1], second) < outside(made[1], first)
    assert outside(made[2], first) < outside(made[2], second)


@real
@pytest.mark.slow
def test_heads_of_real_people(tmp_path: Path) -> None:
    for file in sorted((DATA / "site-a" / "derivatives" / "dlmuse").rglob("*_dseg.nii.gz"))[:2]:
        shutil.copy(file, tmp_path)
    rows = [("0", "background", "0"), ("1", "CSF", "3"), ("46", "CSF", "3")]
    rows += [(str(i), f"lateral ventricle {i}", "3") for i in VENTRICLES]
    rows += [(str(i), f"grey {i}", "1") for i in GREY] + [(str(i), f"white {i}", "2") for i in WHITE]
    rows += [(str(i), f"other {i}", "3") for i in range(2, 210) if str(i) not in {row[0] for row in rows}]
    write_table(tmp_path / TABLE, ("index", "name", "mapping"), rows)
    for head in anatomies(tmp_path, TINY):
        assert 5 < float(head.lateral.sum()) * 0.064 < 80
        assert float(head.gm.sum()) > 0.8 * float(head.wm.sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (None, "there is none"),
        ([("0", "background", "0"), ("1", "grey", "1")], "must name grey and white matter and the lateral ventricles"),
        ([*ROWS, ("x", "what", "1")], "whole numbers"),
        (ROWS, "label 4, which dseg.tsv does not name"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(
    labels: Path, tmp_path: Path, rows: list[tuple[str, str, str]] | None, why: str
) -> None:
    shutil.copy(next(labels.rglob("*_dseg.nii.gz")), tmp_path)
    if rows is not None:
        write_table(tmp_path / TABLE, ("index", "name", "mapping"), rows)
    with pytest.raises(DataRefused, match=why):
        anatomies(tmp_path, TINY)


@pytest.mark.slow
def test_a_scan_is_no_label_map_and_a_ball_no_head(tmp_path: Path) -> None:
    write_table(tmp_path / TABLE, ("index", "name", "mapping"), ROWS)
    with pytest.raises(DataRefused, match=r"no \*_dseg"):
        anatomies(tmp_path, TINY)
    affine = np.diag([4.0, 4, 4, 1])
    write_volume(tmp_path / "a_dseg.nii.gz", np.random.default_rng(0).random((20, 20, 20)).astype(np.float32), affine)
    with pytest.raises(DataRefused, match="no label map"):
        anatomies(tmp_path, TINY)
    far = np.indices((20, 20, 20)).transpose(1, 2, 3, 0) - 9.5
    write_volume(tmp_path / "a_dseg.nii.gz", (np.linalg.norm(far, axis=-1) < 8).astype(np.float32), affine)
    with pytest.raises(DataRefused, match=r"a_dseg\.nii\.gz: did not register"):
        anatomies(tmp_path, TINY)
