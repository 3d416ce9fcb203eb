"""A small study, and phantoms in place of generated volumes: the release code never knows the difference."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.data.phantom import phantoms
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import load_prior
from privacy.signing import SigningKey
from server.release.cohort import draw
from server.release.inputs import Control, Quality, ReleaseInputs, SitePrivacy, StagePrivacy, Sweep
from server.release.publish import publish
from server.release.seal import seal
from tests.server.release.hospitals import EDITION, Hospitals

TOML = """
study = "demo"
question = "Do <script>alert('ventricles')</script> & sulci widen with age?"
seed = 7
sites = [{name = "site-a", patients = 60}, {name = "site-b", patients = 40}]
[privacy]
mechanism = "local"
epsilon = 8.0
delta = 1e-4
[[stages]]
name = "decoder"
trainable = "lora:4"
rounds = 2
local_steps = 4
sample_rate = 0.2
views = 2
clip = 1.0
learning_rate = 0.1
share = 0.4
[[stages]]
name = "generator"
trainable = "lora:4"
rounds = 3
local_steps = 4
sample_rate = 0.2
views = 2
clip = 1.0
learning_rate = 0.1
share = 0.6
[federation]
quorum = 2
deadline_s = 60.0
[release]
seed = 11
[[release.cells]]
count = 4
conditions = {age = [60, 95], sex = ["F", "M"], diagnosis = ["healthy", "dementia"], ventricles = [20, 60]}
[[release.cells]]
count = 2
conditions = {age = [90, 94], sex = ["F"]}
[rehearsal]
note = "phantoms <b>only</b>"
"""


ROW = Quality("Reconstruction", "dB", "higher", "public mean volume", 24.6, 27.2, 28.1, 28.9)
SITE = SitePrivacy("site-a", 5.4, 8.0, 1e-4, 6.2, (StagePrivacy("decoder", 3.2, 0.2, 16),))


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    path: Path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(TOML, encoding="utf-8")
    return TrainingPlan.load(path)


@pytest.fixture(scope="session")
def volumes() -> Tensor:
    return torch.stack([volume for volume, _ in phantoms(PRESETS["tiny"], 6, 3, Hospital(name="x"))])


@dataclass(frozen=True)
class Signed:
    """A signed release with everything that made it; tests copy the folder before they touch it."""

    release: Path
    plan: TrainingPlan
    hospitals: Hospitals
    key: SigningKey

    @property
    def public(self) -> Path:
        return self.release.parent / "release.pub"


@pytest.fixture(scope="session")
def voting(plan: TrainingPlan) -> TrainingPlan:
    """The plan with a vote, and sampling cut short."""
    privacy = plan.privacy.model_copy(update={"vote_epsilon": 2.0})
    return plan.but(privacy=privacy, release=plan.release.model_copy(update={"steps": 2}))


@pytest.fixture(scope="session")
def signed(voting: TrainingPlan, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    out = tmp_path_factory.mktemp("signed")
    hospitals, key = Hospitals(out, voting), SigningKey.generate()
    release = publish(voting, load_prior(voting), out, hospitals, EDITION)
    seal(release, key, hospitals.approvals(release))
    (out / "release.pub").write_bytes(key.public.pem)
    return Signed(release, voting, hospitals, key)


@pytest.fixture(scope="session")
def inputs(plan: TrainingPlan, volumes: Tensor) -> ReleaseInputs:
    return ReleaseInputs(
        plan=plan,
        people=draw(plan.release, plan.variables),
        volumes=volumes,
        age_sweep=Sweep("age", "year", (20.0, 50.0, 80.0), volumes[:3], (30.0, 36.0, 44.0), "noise, sex F"),
        ventricle_sweep=Sweep("ventricles", "ml", (20.0, 60.0), volumes[:2], (22.0, 55.0), "noise, age 60"),
        control=Control("ventricles", "ml", (20.0, 30.0, 40.0, 50.0), (24.0, 29.0, 41.0, 44.0)),
        panel=(ROW, Quality("Diversity", "", "closer", "real pairs", 0.62, None, math.nan, None, "the arm was <i>off</i>")),
        privacy=(SITE, dataclasses.replace(SITE, site="site-b", epsilon=4.0)),
        rounds=({"stage": "decoder", "round": 1, "epsilon": {"site-a": 2.0, "site-b": 1.0}},
                {"stage": "generator", "round": 1, "epsilon": {"site-a": 5.4, "site-b": 4.0}}),
        provenance={"Command": "braing3n-sim run demo.toml --note 'see https://example.org & <img src=//evil>'"},
    )
