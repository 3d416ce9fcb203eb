"""Phantoms have the truth they were asked for, repeat with their seed, and are ordinary BIDS."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.phantom import phantoms, write_folders
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.metrics import brain_mask_of, correlation, dice
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital

TINY = PRESETS["tiny"]
PUBLIC = Hospital(name="public")


def test_the_same_seed_gives_the_same_people() -> None:
    one, two, other = (list(phantoms(TINY, 3, seed, PUBLIC)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) and s == t for (a, s), (b, t) in zip(one, two, strict=True))
    assert not torch.equal(one[0][0], other[0][0])


@pytest.mark.slow
def test_factors_do_to_anatomy_what_they_say() -> None:
    found = list(phantoms(TINY, 150, 3, PUBLIC))
    truth = [t for _, t in found]
    assert correlation([t.age for t in truth], [t.ventricles_ml for t in truth]) > 0.5
    size = {sex: np.mean([float((v > 0).sum()) for v, t in found if t.sex == sex]) for sex in ("F", "M")}
    assert size["M"] > 1.02 * size["F"]
    old = [t for t in truth if t.age > 60]
    ill, well = ([t.ventricles_ml for t in old if (t.diagnosis == "dementia") is flag] for flag in (True, False))
    assert np.mean(ill) > np.mean(well) + 1
    assert not [t for t in truth if t.diagnosis == "dementia" and t.age < 55]


def test_phantoms_are_brains_where_the_template_is() -> None:
    public = template(TINY)
    overlaps = [dice(brain_mask_of(v), public.mask) for v, _ in phantoms(TINY, 8, 5, PUBLIC)]
    assert min(overlaps) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"contrast": 0.1}, {"bias": 0.1}, {"ageing": 0.2}, {"disease": 0.3}, {"folding": 2.0}])
def test_every_difference_between_hospitals_shows(change: dict[str, float]) -> None:
    ours, theirs = (torch.stack([v for v, _ in phantoms(TINY, 20, 6, h)]) for h in (PUBLIC, Hospital(name="x", **change)))
    assert float((ours - theirs).abs().mean()) > 1e-4


def test_folders_are_bids_with_the_truth_in_the_table(tmp_path: Path) -> None:
    seen = []
    folders = write_folders(tmp_path / "out", 3, 2, 9, lambda done, total: seen.append((done, total)))
    assert [f.name for f in folders] == ["site-a", "site-b"]
    assert seen[-1] == (6, 6)
    for folder in folders:
        rows = list(csv.DictReader((folder / "participants.tsv").read_text().splitlines(), delimiter="\t"))
        assert len(rows) == 3
        assert json.loads((folder / "dataset_description.json").read_text())["BIDSVersion"]
        for row in rows:
            name = row["participant_id"]
            values, affine = read_volume(folder / name / "anat" / f"{name}_T1w.nii.gz")
            assert values.shape == TINY.shape
            assert np.allclose(affine, template(TINY).affine)
            assert 18 <= float(row["age"]) <= 95
    first, second = (read_volume(f / "sub-ph0001" / "anat" / "sub-ph0001_T1w.nii.gz")[0] for f in folders)
    assert not np.array_equal(first, second)
