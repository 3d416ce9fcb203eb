"""A plan's cost and noise are known before anybody is asked, and follow from its own numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import TrainingPlan
from server.plan_check import check, checked, in_words

RECIPES = Path(__file__).parent.parent.parent / "simulations" / "recipes"


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """The demo with many weights to train in its second stage."""
    text = (RECIPES / "demo.toml").read_text(encoding="utf-8").replace('learns = "mean"', 'learns = "flow"')
    (tmp_path / "loud.toml").write_text(text.replace("group:population", "group:conditions"), encoding="utf-8")
    return tmp_path / "loud.toml"


def test_what_a_plan_spends_is_recomputed_and_stays_below_what_was_agreed(loud: Path) -> None:
    check = checked(loud)
    assert 0.98 * check.agreed <= check.epsilon <= check.agreed
    assert json.loads(check.as_json())["digest"] == check.digest
    text = "\n".join(in_words(check))
    assert check.digest in text
    assert "quiet enough to learn" in text
    assert "train fewer weights" in text


def test_the_demo_trains_what_its_patients_can_hide() -> None:
    assert all(stage.quiet for stage in checked(RECIPES / "demo.toml").stages)


def test_noise_over_clip_is_the_law_of_weights_and_patients(loud: Path) -> None:
    few, many = checked(RECIPES / "demo.toml").stages[1], checked(loud).stages[1]
    assert (few.weights, few.noise_multiplier) == (256, many.noise_multiplier)
    for site, ratio in few.noise_over_clip.items():
        assert many.noise_over_clip[site] / ratio == pytest.approx(math.sqrt(many.weights / few.weights), rel=1e-6)
    equal = next(iter(few.noise_over_clip.values()))         # three sites of one size: independent noises average
    assert few.pooled == pytest.approx(equal / math.sqrt(3), rel=1e-9)


@pytest.mark.slow
def test_how_well_a_change_of_the_loss_will_be_known_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    text = (RECIPES / "demo.toml").read_text(encoding="utf-8").replace("vote_epsilon", "fit_share = 0.02\nvote_epsilon")
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    check, without = checked(tmp_path / "plan.toml"), checked(RECIPES / "demo.toml")
    assert without.fit_noise == {}
    assert not any("fit:" in line for line in in_words(without))
    assert check.fit_noise.keys() == {"decoder", "generator"}
    assert all(0 < noise < 0.02 for noise in check.fit_noise.values()), "two hundredths of the loss, for a hundredth of noise"
    assert "fit: what generator changes of the loss" in "\n".join(in_words(check))
    assert check.epsilon <= check.agreed
    assert 1 < check.stages[1].noise_multiplier / without.stages[1].noise_multiplier < 1.03


def test_a_plan_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    text = (RECIPES / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "plan.toml").write_text(text.replace("epsilon = 8.0", "epsilom = 8.0"), encoding="utf-8")
    with pytest.raises(PlanRefused, match="did you mean 'epsilon'"):
        checked(tmp_path / "plan.toml")


def test_a_volume_that_nobody_can_be_brought_to_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    text = (RECIPES / "three_sites_dp.toml").read_text(encoding="utf-8")
    plain = TrainingPlan.load(RECIPES / "three_sites_dp.toml")
    assert "exact" not in plain.canonical(), "plans written before the key keep their digest"
    found = {}
    for name, most in (("within", "40.0"), ("beyond", "110.0")):
        asked = text.replace("{ age =", f"{{ ventricles = [25.0, {most}], age =", 1)
        (tmp_path / f"{name}.toml").write_text(asked.replace("steps = 12", "steps = 12\nexact = true"), encoding="utf-8")
        found[name] = TrainingPlan.load(tmp_path / f"{name}.toml")
    assert found["within"].release.exact
    assert check(found["within"]).agreed == plain.privacy.epsilon
    with pytest.raises(PlanRefused, match=r"ventricles is asked for as 25.0, 110.0 ml, and people can be brought to"):
        check(found["beyond"])
