"""A scan carries numbers that break the arithmetic: it harms no other patient, and does not show outside."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.client.studies import PEOPLE, Scans, patient, rehearsal, request, site, stage, study


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_scan_of_nan_harms_nobody(tmp_path: Path, poison: float) -> None:
    steps = {"sample_rate": 1.0, "local_steps": 1}
    plan = rehearsal(stages=[stage("decoder", "group:style", **steps), stage("generator", "lora:1", **steps)])
    broken = patient(42, fill=poison)
    for name in ("decoder", "generator"):
        without = site(tmp_path / f"{name}-without", plan).round(request(plan, name))
        alongside = site(tmp_path / f"{name}-with", plan, Scans((*PEOPLE, broken))).round(request(plan, name))
        assert without.values is not None
        assert alongside.values is not None
        # A pass with a broken patient is taken again by the loop engine, which adds up in another order.
        assert np.allclose(alongside.values, without.values, rtol=1e-4, atol=1e-7)
        assert np.abs(without.values).max() > 0


def test_a_hospital_of_broken_scans_sends_noise_like_any_other(tmp_path: Path) -> None:
    everyone = [patient(number, fill=math.nan) for number in range(3)]
    answer = site(tmp_path, scans=Scans(everyone)).round(request(study()))
    assert answer.values is not None
    assert np.isfinite(answer.values).all()
    assert np.abs(answer.values).max() > 0
