"""A site as it is started for real: the shipped prior, scans in a BIDS folder, nothing put in their place."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from braing3n_core.data.hospital import write_hospital
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import Request, initial_values
from client.site import Site
from tests.client.studies import stage, study

PLAN = study(
    stages=[
        stage("decoder", "group:style", rounds=1, local_steps=1),
        stage("generator", "group:conditions", rounds=1, local_steps=1),
    ],
    data={"registration": "none"},
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital") / "north"
    write_hospital(folder, PLAN.site("north"), PLAN)
    return folder


def requests(plan: TrainingPlan) -> list[Request]:
    values = initial_values(load_prior(plan), plan)
    return [
        Request(plan.digest, known.name, 1, np.concatenate(values[: place + 1])) for place, known in enumerate(plan.stages)
    ]


@pytest.mark.slow
def test_a_site_trains_every_stage_on_a_bids_folder(tmp_path: Path, hospital: Path) -> None:
    site = Site("north", PLAN, tmp_path, hospital)
    assert site.ready().header["kind"] == "ready", (tmp_path / "site.log").read_text()
    for asked in requests(PLAN):
        answer = site.round(asked)
        assert answer.header["kind"] == "update", (tmp_path / "site.log").read_text()
    assert 0 < float(answer.header["epsilon"]) <= PLAN.privacy.epsilon


@pytest.mark.slow
def test_a_scan_of_nan_on_disk_is_left_out_and_harms_nobody(tmp_path: Path, hospital: Path) -> None:
    spoilt = shutil.copytree(hospital, tmp_path / "bids")
    path = sorted(spoilt.rglob("*_T1w.nii.gz"))[0]
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), path)
    answer = Site("north", PLAN, tmp_path, spoilt).round(requests(PLAN)[0])
    assert answer.header["kind"] == "update", (tmp_path / "site.log").read_text()
    log = (tmp_path / "site.log").read_text()
    assert path.name in log, "the operator reads which file was left out"
    assert path.name not in (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_no_scans_no_budget(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    site = Site("north", PLAN, tmp_path / "site", tmp_path / folder)
    for answer in (site.ready(), site.round(requests(PLAN)[0])):
        assert (answer.header["code"], answer.header["exit_code"]) == ("data-refused", 3)
    assert '"reserved"' not in (tmp_path / "site" / "ledger.jsonl").read_text()
