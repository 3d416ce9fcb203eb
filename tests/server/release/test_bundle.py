"""A generator that is given away: MONAI's tools load it offline, and nobody gives it by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from braing3n_core.errors import GateBlocked, IntegrityError
from braing3n_core.generate import generate
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.released import PLAN, WEIGHTS, Released
from braing3n_core.state import load, save
from client.attest import NOBODY_LOOKED, approve
from privacy.signing import SigningKey
from server.release.publish import publish
from server.release.seal import seal
from server.release.verify import verify
from tests.server.release.conftest import Signed
from tests.server.release.hospitals import EDITION, Hospitals, copied, folder_of, resigned

pytestmark = pytest.mark.slow                              # a release is generated and signed


@pytest.fixture(scope="module")
def given(voting: TrainingPlan, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A signed release that every site agreed to give away with its generator."""
    out = tmp_path_factory.mktemp("given")
    hospitals, key = Hospitals(out, voting), SigningKey.generate()
    release = publish(voting, load_prior(voting), out, hospitals, EDITION, with_generator=True)
    seal(release, key, approvals(hospitals, release))
    return Signed(release, voting, hospitals, key)


def approvals(hospitals: Hospitals, release: Path) -> list[object]:
    sites = hospitals.keys.items()
    return [approve(release, folder_of(hospitals.root, site), site, key, NOBODY_LOOKED, True) for site, key in sites]


def test_monai_draws_from_it_what_the_release_s_own_sampler_draws(given: Signed) -> None:
    parser = ConfigParser()
    parser.read_config(str(given.release / "generator" / "configs" / "inference.json"))
    parser["bundle_root"] = str(given.release / "generator")
    parser["conditions"] = [{"age": 70.0, "sex": "F"}]
    drawn = parser.get_parsed_content("volumes")
    assert drawn.shape == (1, 1, *given.plan.model.shape)
    assert torch.equal(drawn, Released.load(given.release / "generator").sample([{"age": 70.0, "sex": "F"}], 1))


def test_the_bundle_says_what_it_is(given: Signed) -> None:
    metadata = json.loads((given.release / "generator" / "configs" / "metadata.json").read_text())
    needed = {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors", "copyright",
              "network_data_format"}  # fmt: skip
    assert needed <= metadata.keys()
    assert metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"] == [48, 48, 48]
    assert "Not diagnosis" in metadata["intended_use"]
    assert "generator/" in (given.release / ".bidsignore").read_text().splitlines()


def test_it_verifies_and_the_certificate_says_so(given: Signed) -> None:
    assert "2 of 2 sites" in verify(given.release, given.key.public).steps[7][2]
    stated = json.loads((given.release / "docs" / "privacy_certificate.json").read_text())
    assert stated["generator"] is True
    (weights,) = [said["text"] for said in stated["statements"] if said["title"] == "Weights"]
    assert "given away too" in weights
    assert "the gates do not" in weights


def test_a_site_that_was_not_asked_about_the_generator_never_gives_it(given: Signed) -> None:
    site, key = next(iter(given.hospitals.keys.items()))
    with pytest.raises(GateBlocked, match="with-generator"):
        approve(given.release, folder_of(given.hospitals.root, site), site, key, NOBODY_LOOKED)


def test_a_generator_that_was_slipped_in_or_taken_out_afterwards_is_noticed(
    given: Signed, signed: Signed, tmp_path: Path
) -> None:
    """By a publisher who holds the release key."""
    slipped = copied(signed.release, tmp_path / "in")
    (slipped / "generator").mkdir()
    (slipped / "generator" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"step 5, documents: .*disagree on whether generator/"):
        verify(resigned(slipped, signed.key), signed.key.public)


def test_weights_that_were_trained_before_people_had_anything_in_common_draw_as_they_did(given: Signed, tmp_path: Path) -> None:
    bundle = copied(given.release, tmp_path) / "generator"
    tensors, about = load(bundle / WEIGHTS)
    assert not tensors.pop("generator.common.code").any()
    save(bundle / WEIGHTS, tensors, about)
    drawn = Released.load(bundle).sample([{"age": 70.0}], 1)
    assert torch.equal(drawn, Released.load(given.release / "generator").sample([{"age": 70.0}], 1))


def test_a_recipient_draws_people_who_are_spread_and_brought_to_volumes_as_the_plan_says(given: Signed, tmp_path: Path) -> None:
    (stage,) = [stage for stage in given.plan.stages if stage.name == "generator"]
    spread = stage.model_copy(update={"name": "spread", "trainable": "all", "learns": "flow", "share": 0.5})
    plan = given.plan.but(
        stages=[stage.model_copy(update={"share": 0.5}), spread], release=given.plan.release.model_copy(update={"exact": True})
    )
    model = load_prior(plan)
    model.spreading.moves.code.fill_(0.5)
    for folder in (PLAN, WEIGHTS):
        (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / PLAN).write_text(plan.canonical())
    save(tmp_path / WEIGHTS, model.state_dict(), {"plan": plan.digest})
    asked = [{"age": 70.0, "ventricles": 30.0}]
    expected = generate(model, asked, 1, steps=plan.release.steps, guidance=plan.release.weights)
    drawn = Released.load(tmp_path).sample(asked, 1)
    assert torch.equal(drawn, expected)
    plain = generate(load_prior(given.plan), asked, 1, steps=plan.release.steps, guidance=plan.release.weights)
    assert not torch.allclose(drawn, plain, atol=1e-3)


@pytest.mark.parametrize("spoil", ["plan", "weights", "nothing there"])
def test_weights_of_another_plan_are_not_loaded(given: Signed, tmp_path: Path, spoil: str) -> None:
    bundle = copied(given.release, tmp_path) / "generator"
    if spoil == "plan":
        (bundle / PLAN).write_text(given.plan.but(seed=given.plan.seed + 1).canonical())
    elif spoil == "weights":
        (bundle / WEIGHTS).write_bytes((bundle / WEIGHTS).read_bytes()[:-10])
    else:
        (bundle / PLAN).unlink()
    with pytest.raises(IntegrityError):
        Released.load(bundle)
