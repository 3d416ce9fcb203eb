"""Generated people who look as they were asked to teach a probe; those of a generator that does not listen teach nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from braing3n_core.models.brain import Brain
from braing3n_core.prior import SHIPPED, read_prior
from simulations import tstr


@pytest.fixture(scope="module")
def prior() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors")


def deaf() -> Brain:
    model = read_prior(SHIPPED / "tiny.safetensors")
    with torch.no_grad():
        for known in model.generator.conditions.known:
            for parameter in known.parameters():
                parameter.zero_()
    return model


@pytest.mark.slow
def test_a_generator_that_does_not_listen_teaches_nothing(prior: Brain, tmp_path: Path) -> None:
    training, tested = tstr.of_phantoms(prior, 32, 32)
    found = tstr.rows({"prior": prior, "deaf": deaf()}, prior, training, tested, 2, 1.0, lambda _: None)
    table = {(row.arm, row.target, row.features): row for row in found}
    assert {"age", "sex", "ventricles"} <= {row.target for row in found}
    assert "modality" not in {row.target for row in found}, "one level only"
    heard, ignored = (table[arm, "ventricles", "voxels"].taught for arm in ("prior", "deaf"))
    assert heard is not None
    assert ignored is not None
    assert heard.share > 0.6
    assert ignored.share < 0.3
    assert table["prior", "ventricles", "voxels"].real == table["deaf", "ventricles", "voxels"].real
    assert all((row.trained, row.tested) == (32, 32) for row in found)
    tstr.write(found, tmp_path / "tstr.json")
    assert len(json.loads((tmp_path / "tstr.json").read_text())) == len(found) == len(tstr.told(found)) - 2


def test_nobody_is_on_both_sides(prior: Brain) -> None:
    training, tested = tstr.of_phantoms(prior, 3, 3)
    assert not any(torch.equal(a, b) for a in training.volumes for b in tested.volumes)
    assert len(training) == len(tested) == 3
    assert all(row["ventricles"] is not None for row in training.conditions)
