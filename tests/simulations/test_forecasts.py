"""The forecast table knows who was right: a perfect forecast avoids all of the error, the first scan none of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from braing3n_core.models.brain import Brain
from braing3n_core.prior import SHIPPED, read_prior
from simulations import forecasts


@pytest.fixture(scope="module")
def model() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors", parts=("trajectory",))


@pytest.fixture(scope="module")
def found(model: Brain) -> forecasts.Told:
    return forecasts.told_for(model, 20.0, 8, 12, lambda _: None)


@pytest.mark.slow
def test_the_shipped_trajectory_forecasts_better_than_no_change(found: forecasts.Told, tmp_path: Path) -> None:
    rows = {row.way: row for row in found.rows}
    nothing, average, ours = (rows[way] for way in (forecasts.NO_CHANGE, forecasts.AVERAGE, forecasts.FORECAST))
    assert nothing.better == nothing.low == nothing.high == 0
    assert ours.anatomy < 0.8 * nothing.anatomy
    assert ours.ventricles < 0.7 * nothing.ventricles
    assert ours.scan > ours.anatomy, "a new field and new noise are in every scan and nobody's to forecast"
    assert average.anatomy < nothing.anatomy
    forecasts.write(found.rows, tmp_path / "forecast.json")
    assert [row["way"] for row in json.loads((tmp_path / "forecast.json").read_text())] == list(rows)
    assert len(forecasts.told(found.rows)) == 4


@pytest.mark.slow
def test_a_perfect_forecast_has_no_error_left(model: Brain, found: forecasts.Told) -> None:
    perfect = forecasts._rows(model, found.seen, {forecasts.NO_CHANGE: found.seen.first, "oracle": found.seen.still})
    assert perfect[1].anatomy == 0
    assert perfect[1].ventricles == 0
    assert perfect[1].better == 1


@pytest.mark.slow
def test_the_picture_shows_one_person(found: forecasts.Told) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(forecasts.picture(found))))
    assert pixels.shape[0] > 500
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 300
    assert torch.isfinite(found.forecasts).all()
