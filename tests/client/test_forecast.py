"""A patient's follow-up: from one file to a folder that only its owner reads, and one line for whatever cannot be."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume, write_volume
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, read_prior
from client.forecast import foresee, person_of, write_forecast

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def model() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors", parts=("trajectory",))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    (person,) = people(TINY, 1, 77, Hospital(name="x"), Wishes())
    path = tmp_path / "sub-01_T1w.nii.gz"
    write_volume(path, person.visits[0].images["T1w"].numpy(), template(TINY).affine)
    return path


@pytest.mark.slow
def test_a_scan_becomes_a_forecast_that_others_cannot_read(model: Brain, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "later"
    found = write_forecast(scan, out, model, ["age=58", "sex=F"], 15.0, "none")
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert sorted(path.name for path in out.iterdir()) == ["forecast.json", "forecast.nii.gz", "forecast.png", "now.nii.gz"]
    now, affine = read_volume(out / "now.nii.gz")
    then, _ = read_volume(out / "forecast.nii.gz")
    assert np.allclose(affine, template(TINY).affine)
    assert now.shape == then.shape == TINY.shape
    assert np.abs(then - now).max() > 0.05
    numbers = json.loads((out / "forecast.json").read_text())
    assert numbers["forecast_ml"]["ventricles"] > numbers["now_ml"]["ventricles"], "phantoms' ventricles grow with age"
    assert found.low["ventricles"] < found.high["ventricles"]
    assert any("ventricles" in line for line in found.told())
    with pytest.raises(UsageError, match="there already"):
        write_forecast(scan, out, model, [], 15.0, "none")


@pytest.mark.parametrize(
    ("word", "why"),
    [("age=200", "18 to 95 year"), ("age=old", "18 to 95 year"), ("age=nan", "18 to 95 year"), ("sex=X", "choose from F, M"),
     ("colour=red", "the model knows age")],
)  # fmt: skip
def test_what_is_said_of_a_person_must_be_known(model: Brain, word: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        person_of(model, [word])


@pytest.mark.parametrize("years", [0.0, 21.0, float("nan")])
def test_years_beyond_the_trajectory_are_refused_before_any_work(model: Brain, years: float) -> None:
    with pytest.raises(UsageError, match="at most 20 years"):
        foresee(model, torch.zeros(1, *TINY.shape), {}, years)


def test_nothing_is_left_behind_when_the_scan_cannot_be_read(model: Brain, tmp_path: Path) -> None:
    broken = tmp_path / "sub-01_T1w.nii.gz"
    broken.write_bytes(b"not an image")
    with pytest.raises(DataRefused):
        write_forecast(broken, tmp_path / "later", model, [], 5.0, "none")
    assert [path.name for path in tmp_path.iterdir()] == [broken.name]
