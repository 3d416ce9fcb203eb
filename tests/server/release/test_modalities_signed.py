"""A release with T1w and FLAIR from the prior as it ships: signed, verified, tampered with, and drawn from again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from braing3n_core.data.template import template
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import IntegrityError, UsageError
from braing3n_core.metrics import brain_mask_of, dice
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.released import Released
from client.attest import NOBODY_LOOKED, approve
from privacy.signing import SigningKey
from server.release.publish import publish
from server.release.seal import seal
from server.release.verify import verify
from tests.server.release.conftest import Signed
from tests.server.release.hospitals import EDITION, Hospitals, copied, folder_of, resigned, shown_in_both

pytestmark = pytest.mark.slow                                # a release is generated and signed
CELLS = [
    {"count": 2, "modalities": ["T1w", "FLAIR"], "visits": 2, "years": 5.0, "conditions": {"age": [30, 85]}},
    {"count": 1, "conditions": {"age": [30, 40]}},
]


@pytest.fixture(scope="module")
def drawn(voting: TrainingPlan, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """Signed by sites and publisher: T1w and FLAIR at two visits, one person with a T1w alone, and the generator."""
    longer = shown_in_both(voting, {"seed": 5, "steps": 4, "cells": CELLS})
    out = tmp_path_factory.mktemp("drawn")
    hospitals, key = Hospitals(out, longer), SigningKey.generate()
    release = publish(longer, load_prior(longer), out, hospitals, EDITION, with_generator=True)
    sites = hospitals.keys.items()
    seal(release, key, [approve(release, folder_of(out, site), site, own, NOBODY_LOOKED, True) for site, own in sites])
    return Signed(release, longer, hospitals, key)


def test_a_release_with_flair_is_signed_and_verified(drawn: Signed) -> None:
    verdict = verify(drawn.release, drawn.key.public)
    assert "9 images, every one marked as synthetic" in verdict.steps[8][2]
    assert "2 of 2 sites" in verdict.steps[7][2]
    assert (drawn.release.parent / "cohort.png").stat().st_size > 0


@pytest.mark.parametrize("crime", ["flip", "remove", "rename"])
def test_a_flair_is_under_the_signature_as_every_image_is(drawn: Signed, tmp_path: Path, crime: str) -> None:
    release = copied(drawn.release, tmp_path)
    (image,) = release.glob("sub-syn0001/ses-01/anat/*_FLAIR.nii.gz")
    match crime:
        case "flip":
            raw = bytearray(image.read_bytes())
            raw[100] ^= 1
            image.write_bytes(bytes(raw))
        case "remove":
            image.unlink()
        case "rename":
            image.rename(image.with_name(image.name.replace("_FLAIR", "_T2w")))
    with pytest.raises(IntegrityError, match="step 3, files"):
        verify(release, drawn.key.public)


def test_a_publisher_cannot_pass_off_a_flair_as_real(drawn: Signed, tmp_path: Path) -> None:
    release = copied(drawn.release, tmp_path)
    (sidecar,) = release.glob("sub-syn0001/ses-01/anat/*_FLAIR.json")
    sidecar.write_text(sidecar.read_text().replace('"SyntheticData": true', '"SyntheticData": false'))
    with pytest.raises(IntegrityError):
        verify(resigned(release, drawn.key), drawn.key.public)


def test_both_images_of_a_drawn_brain_are_of_one_brain(drawn: Signed) -> None:
    flairs = drawn.release.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz")
    pairs = [(path, path.with_name(path.name.replace("_FLAIR", "_T1w"))) for path in flairs]
    assert len(pairs) == 4
    for pair in pairs:
        flair, t1w = (torch.from_numpy(read_volume(path)[0]) for path in pair)
        assert dice(brain_mask_of(flair), brain_mask_of(t1w)) > 0.98
        white, grey = template(drawn.plan.model).wm > 0.9, template(drawn.plan.model).gm > 0.8
        flat, split = (float(shown[grey].mean() / shown[white].mean()) for shown in (flair, t1w))
        assert flat > 0.8 > split, "white matter stands out on T1w alone"
    visits = (drawn.release / "sub-syn0001" / "sub-syn0001_sessions.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in visits] == ["session_id", "ses-01", "ses-02"]
    assert "One synthetic person over the years: 0 years to 5 years" in (drawn.release / "docs" / "report.html").read_text()


def test_the_bundle_draws_the_same_brain_in_either_modality(drawn: Signed) -> None:
    parser = ConfigParser()
    parser.read_config(str(drawn.release / "generator" / "configs" / "inference.json"))
    parser["bundle_root"], parser["modality"] = str(drawn.release / "generator"), "FLAIR"
    parser["conditions"] = [{"age": 70.0, "sex": "F"}]
    flair = parser.get_parsed_content("volumes")
    generator = Released.load(drawn.release / "generator")
    assert torch.equal(flair, generator.sample([{"age": 70.0, "sex": "F"}], 1, "FLAIR"))
    assert dice(brain_mask_of(flair[0]), brain_mask_of(generator.sample([{"age": 70.0, "sex": "F"}], 1)[0])) > 0.97
    with pytest.raises(UsageError, match="not T2w"):
        generator.sample([{}], 1, "T2w")
