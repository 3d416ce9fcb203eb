"""Every step of preparing is timed on every scan that can be prepared, and those that cannot are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braing3n_core.data.hospital import write_hospital
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import overridden
from simulations.bench.preparing import as_json, bench, told

PLAN = TrainingPlan.load(Path(__file__).parents[3] / "simulations" / "recipes" / "smoke.toml")


@pytest.mark.slow
def test_each_step_of_each_usable_scan_is_timed(tmp_path: Path) -> None:
    plan = overridden(PLAN, patients=3)
    data = tmp_path / "data"
    write_hospital(data, plan.sites[0], plan)
    broken = sorted(data.rglob("*_T1w.nii.gz"))[1]
    broken.write_bytes(broken.read_bytes()[:1000])
    said: list[str] = []
    found = bench(data, PRESETS["tiny"], 3, said.append)
    assert (found.refused, {row.scans for row in found.rows}) == (1, {2})
    cost = {row.step: row.seconds for row in found.rows}
    assert len(cost) == 7
    assert all(0 <= row.seconds <= row.slowest for row in found.rows)
    assert cost["from the cache"] < cost["all that training needs"]
    assert next(row.floors for row in found.rows if "floor" in row.step) == 1
    assert json.loads(as_json(found))["refused"] == 1
    assert "1 scans refused" in "\n".join(told(found))
    assert any(line.startswith("left out: ") for line in said)


def test_a_folder_without_a_usable_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused):
        bench(tmp_path, PRESETS["tiny"], 3, lambda line: None)
