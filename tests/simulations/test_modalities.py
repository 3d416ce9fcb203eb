"""The table of made FLAIR knows who was right: their own latents, the right T1w, and another's, in this order."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.errors import DataRefused
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import SHIPPED, read_prior
from simulations import modalities

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "site-ms"
RECIPE = ROOT / "simulations" / "recipes" / "two_modalities.toml"


@pytest.fixture(scope="module")
def model() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors", parts=("FLAIR",))


@pytest.fixture(scope="module")
def found(model: Brain) -> modalities.Told:
    return modalities.told_for(model, 8, lambda _: None)


@pytest.mark.slow
def test_a_flair_is_made_from_the_t1w_of_the_same_person(found: modalities.Told, tmp_path: Path) -> None:
    own, made, others = found.ways
    assert own.gain > 6
    assert made.gain > 2
    assert made.low > others.high, "another's T1w is another's anatomy"
    modalities.write(found, tmp_path / "modalities.json")
    written = json.loads((tmp_path / "modalities.json").read_text())
    assert [row["way"] for row in written["ways"]] == [row.way for row in found.ways]
    with Image.open(io.BytesIO(modalities.picture(found))) as image:
        assert image.width > 800


@pytest.mark.slow
def test_both_images_of_a_generated_person_have_one_size_of_ventricles(found: modalities.Told) -> None:
    (between,) = [row for row in found.agreements if row.what == "ventricles, on T1w and FLAIR"]
    assert between.r > 0.5, "eight people, and FLAIR tells ventricles less well"
    assert len(between.asked) == len(between.seen) == 8


@pytest.mark.slow
def test_lesions_come_as_asked_for_by_both_readers_and_are_of_no_other_scale(found: modalities.Told) -> None:
    rows = {(row.what, row.people): row for row in found.agreements}
    measured, read = (rows[f"lesions, asked {how}", "generated"] for how in ("and on the FLAIR", "and by ridge"))
    assert measured.r > 0.9
    assert read.r > 0.5, "eight people, and the reader itself reaches 0.84 on people"
    scanned = rows["lesions, true and on the FLAIR", "phantoms, scanned"]
    assert 0.7 < measured.slope / scanned.slope < 1.4
    assert len(found.loaded) == 5
    with Image.open(io.BytesIO(modalities.picture_of_loads(found))) as image:
        assert image.width > 800


@pytest.mark.slow
def test_lesions_do_not_come_where_nobody_leads(model: Brain, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table says when the lead is broken: the condition alone brings hardly any."""
    monkeypatch.setattr("braing3n_core.people.Lead", lambda *_: lambda latents: latents)
    found = modalities.told_for(model, 8, lambda _: None)
    (row,) = [row for row in found.agreements if (row.what, row.people) == ("lesions, asked and on the FLAIR", "generated")]
    assert row.slope < 0.4


@pytest.mark.slow
def test_scans_as_they_were_made_agree_with_themselves(model: Brain) -> None:
    """What is measured on a FLAIR grows with the lesions that are in it."""
    dark = model.modality("FLAIR").decoder.mean[None, None]
    spot = torch.zeros_like(dark)
    spot[..., 17:20, 26:29, 26:28] = 0.55
    few, many = (modalities.measured(dark + more * spot, "FLAIR", model.preset)["lesions"][0] for more in (0.0, 1.0))
    assert many > few


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="real scans are not beside the project: shared/data/site-ms")
def test_real_flair_is_rebuilt_nearer_than_by_the_mean(model: Brain, tmp_path: Path) -> None:
    own, made = modalities.of_patients(model, TrainingPlan.load(RECIPE), DATA, tmp_path)
    assert own.gain > 2, "three scans of two people"
    assert own.gain > made.gain


@pytest.mark.slow
def test_a_folder_without_flair_is_refused(model: Brain, tmp_path: Path) -> None:
    write_bids(tmp_path / "bids", phantoms(model.preset, 2, 1, Hospital(name="x")), model.preset, 2)
    with pytest.raises(DataRefused, match="no patient in bids has a FLAIR for each T1w"):
        modalities.of_patients(model, TrainingPlan.load(RECIPE), tmp_path / "bids", tmp_path / "cache")
