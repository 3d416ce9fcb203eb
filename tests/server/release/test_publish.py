from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.errors import GateBlocked, UsageError
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from server.release import judge as judging
from server.release import publish as publishing
from server.release.cohort import draw
from server.release.gates import budget
from server.release.inputs import Quality, ReleaseInputs, SitePrivacy, StagePrivacy
from server.release.numbers import metrics_json
from server.release.policy import Policy
from server.release.publish import Extras, Reported, publish
from tests.server.release.hospitals import EDITION

SPENT = SitePrivacy("site-a", 5.4, 8.0, 1e-4, 6.2, (StagePrivacy("decoder", 3.2, 0.2, 16),))
LAX = Policy.read(Policy.load().raw.replace(b"most_similar = 0.97", b"most_similar = 1.0").replace(b"= 0.98", b"= 1.0"))
ROW = Quality("Reconstruction", "dB", "higher", "public mean volume", 24.6, 27.2, 28.1, 28.9)
EXTRAS = Extras(quality=[ROW], provenance={"Command": "demo"})


@pytest.fixture(scope="module")
def quick(plan: TrainingPlan) -> TrainingPlan:
    return plan.but(release=plan.release.model_copy(update={"steps": 2}))


@pytest.fixture(scope="module")
def model(plan: TrainingPlan) -> Brain:
    return load_prior(plan)


@pytest.fixture(scope="module")
def release(quick: TrainingPlan, model: Brain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    told: list[tuple[str, int, int]] = []
    folder = publish(
        quick, model, tmp_path_factory.mktemp("run"), Reported([SPENT]), EDITION, extras=EXTRAS, policy=LAX,
        progress=lambda *step: told.append(step),
    )
    assert {what for what, _, _ in told} == {"generating", "age sweep", "ventricles sweep"}
    assert all(0 < done <= total for _, done, total in told)
    return folder


def test_a_release_is_whole_and_verifies(release: Path) -> None:
    assert release.name == "release"
    subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=release, check=True)
    names = {path.name for path in release.iterdir()}
    assert {"README.md", "LICENSE", "CHANGES", "croissant.json", "participants.tsv", "docs", "sub-syn0006"} <= names
    assert {path.name for path in (release / "docs").iterdir()} == {
        "report.html", "metrics.json", "gates.json", "policy.toml", "plan.json", "privacy_certificate.json",
        "privacy_certificate.html",
    }  # fmt: skip
    header = (release / "participants.tsv").read_text().splitlines()[0]
    assert header.endswith("ventricles_measured")
    report = (release / "docs" / "report.html").read_text()
    assert "Age sweep: 60 years to 95 years" in report
    assert "Ventricles sweep: 20 ml to 60 ml" in report


@pytest.mark.slow
def test_the_same_plan_and_model_never_give_another_release(
    quick: TrainingPlan, model: Brain, release: Path, tmp_path: Path
) -> None:
    again = publish(quick, model, tmp_path, Reported([SPENT]), EDITION, extras=EXTRAS, policy=LAX)
    assert (again / "SHA256SUMS").read_bytes() == (release / "SHA256SUMS").read_bytes()


def test_a_sweep_moves_one_condition_over_one_noise(
    quick: TrainingPlan, model: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[dict[str, object]], Tensor]] = []

    def spy(model: Brain, rows: list[dict[str, object]], seed: int, *, noise: Tensor, **_: object) -> Tensor:
        seen.append((rows, noise))
        return torch.zeros(len(rows), 1, *quick.model.shape)

    monkeypatch.setattr(publishing, "generate", spy)
    publishing._Maker(quick, model, None).sweep("ventricles", (30.0, 54.0))
    rows, noise = seen[0]
    assert [row["ventricles"] for row in rows] == [30.0, 34.0, 38.0, 42.0, 46.0, 50.0, 54.0]
    assert len({json.dumps({k: v for k, v in row.items() if k != "ventricles"}) for row in rows}) == 1
    assert all(torch.equal(one, noise[0]) for one in noise)


def test_metrics_are_json_even_when_nothing_is_promised(plan: TrainingPlan, release: Path, volumes: Tensor) -> None:
    table = json.loads((release / "docs" / "metrics.json").read_text())
    assert table["privacy"]["sites"][0] == {
        "site": "site-a", "epsilon": 5.4, "agreed": 8.0, "delta": 1e-4, "epsilon_rdp": 6.2, "epsilon_pld": None,
        "stages": [{"stage": "decoder", "noise_multiplier": 3.2, "sample_rate": 0.2, "steps": 16}],
    }
    assert table["quality"][0]["private"] == 28.1
    endless = dataclasses.replace(SPENT, epsilon=math.inf, epsilon_rdp=math.inf)
    people = draw(plan.release, plan.variables)
    row = Quality("x", "", "higher", "y", math.nan, None, None, None)
    inputs = ReleaseInputs(plan, people, volumes, privacy=[endless], panel=[row], edition=EDITION)
    found = json.loads(metrics_json(inputs))
    assert found["privacy"]["sites"][0]["epsilon"] == "infinite"
    assert found["quality"][0]["baseline"] is None


@pytest.mark.parametrize("spent", [8.001, math.inf])
def test_an_overspent_budget_blocks_before_anything_is_made(
    quick: TrainingPlan, model: Brain, tmp_path: Path, spent: float
) -> None:
    rows = [SPENT, dataclasses.replace(SPENT, site="site-b", epsilon=spent)]
    with pytest.raises(GateBlocked, match=r"site-b spent .* of 8 agreed"):
        publish(quick, model, tmp_path, Reported(rows), EDITION)
    with pytest.raises(GateBlocked, match="no site said"):
        publish(quick, model, tmp_path, Reported(), EDITION)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_without_a_measure_is_no_dot_in_the_chart() -> None:
    control = judging._control([], [], ([30.0, 40.0, math.nan, 50.0], [31.0, math.nan, 42.0, 49.0]))
    assert control
    assert (control.requested, control.measured) == ((30.0, 50.0), (31.0, 49.0))
    assert judging._control([], [], None) is None


def test_a_rehearsal_without_privacy_is_not_blocked_but_says_so(quick: TrainingPlan) -> None:
    bare = quick.but(privacy=quick.privacy.model_copy(update={"mechanism": "non-private"}))
    gate = budget(bare, [dataclasses.replace(SPENT, epsilon=math.inf)])
    assert (gate.passed, gate.applies) == (True, False)


def test_a_release_that_is_there_stops_the_next_before_an_hour_of_sampling(
    quick: TrainingPlan, model: Brain, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crime(*_: object, **__: object) -> Tensor:
        raise AssertionError("sampled although the release could not be written")

    monkeypatch.setattr(publishing, "generate", crime)
    with pytest.raises(UsageError, match="there already"):
        publish(quick, model, release.parent, Reported([SPENT]), EDITION)
