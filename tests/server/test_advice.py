"""Advice before a plan: it follows the law, says when it extrapolates, refuses where nothing is near, and its plan holds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import REFUSED, PlanRefused, UsageError
from braing3n_core.plan import TrainingPlan
from server.advice import Question, advise, in_words, loudness, plan_of
from server.plan_check import check
from server.plan_toml import as_toml
from server.plans import keep
from server.reference import Baseline, Point, Reference, as_bytes

SHIPPED = Reference.shipped()


def point(mechanism: str, epsilon: float, noise: float, *shares: float) -> Point:
    told = json.dumps({
        "mechanism": mechanism, "epsilon": epsilon, "delta": 1e-4, "sites": 3, "patients": 100, "noise_over_clip": noise,
        "plans": ["0"] * len(shares), "seeds": [1] * len(shares),
        "shares": {measure: list(shares) for measure in ("distance", "frechet", "ageing")},
    })  # fmt: skip
    return Point.model_validate_json(told)


ENDS = {"distance": 0.08, "frechet": 4.5, "ageing": 1.7}
FEW = SHIPPED.model_copy(update={
    "points": (point("secure-sum", 8, 0.05, 0.9, 0.96), point("local", 8, 0.1, 0.95, 0.95), point("local", 1, 0.3, 0.3, 1.5)),
    "baselines": (Baseline(sites=3, patients=100, prior=ENDS, without_privacy=dict.fromkeys(ENDS, 0.004)),),
})  # fmt: skip
ASKED = Question(sites=3, patients=100, epsilon=3.0, delta=1e-4)


def test_within_what_was_measured_the_words_are_these() -> None:
    words = list(in_words(advise(ASKED, FEW)))
    assert words == [
        "3 sites of 100 patients at epsilon 3, delta 0.0001",
        "choose secure-sum: its noise is 1.41 times less than that of local",
        "  rests on at most 1 colluding site; against all others together it is epsilon 4.5",
        "learn group:population as a mean: 256 weights, 4 rounds of one step with everybody",
        "  noise over clip 0.08, quiet enough to learn; local would have 0.11",
        "expect, of what training without privacy gains over the public prior:",
        "  94 % in KID to held-out patients (0.08 by the prior, 0.004 without privacy; "
        "4 runs with noise like it: 90 % to 96 %)",
        "  94 % in Fréchet distance to held-out patients (4.5 by the prior, 0.004 without privacy; "
        "4 runs with noise like it: 90 % to 96 %)",
        "  94 % in ventricle growth with age, ml per decade (1.7 by the prior, 0.004 without privacy; "
        "4 runs with noise like it: 90 % to 96 %)",
        "this lies within what was measured",
        "measured on phantom hospitals; yours differ from the public prior in their own ways, the noise does not",
    ]


def test_outside_it_is_said_how_far() -> None:
    words = "\n".join(in_words(advise(Question(10, 250, 3.0, 1e-5), FEW)))
    assert "this is an extrapolation:" in words
    assert "2500 patients, the most measured are 300" in words
    assert "10 sites, measured were 3" in words
    assert "times below the least that was measured (0.05): expect no less" in words
    loud = "\n".join(in_words(advise(replace(ASKED, epsilon=0.7, mechanism="local"), FEW)))
    assert "times the loudest that was measured (0.3): expect less than this" in loud


def test_one_run_is_not_told_as_many() -> None:
    once = FEW.model_copy(update={"points": (point("secure-sum", 8, 0.08, 0.9),)})
    assert "one run with noise like it: 90 %)" in "\n".join(in_words(advise(ASKED, once)))


def test_a_large_consortium_hears_what_it_could_train_and_that_nobody_measured_it() -> None:
    advice = advise(Question(10, 500, 8.0, 1e-5), FEW)
    assert advice.mechanism == "local", "no row tells its noise from that of a secure sum"
    assert advice.largest == "lora:32"
    assert "no row has it: it is not advised" in "\n".join(in_words(advice))
    assert advise(Question(10, 500, 8.0, 1e-5, "secure-sum"), FEW).largest == "all"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question(2, 20, 1.0, 1e-4), "noise over clip would be"),
        (Question(2, 30, 20.0, 1e-4), "60 patients in all, the fewest that were measured are 300"),
        (Question(50, 5000, 3.0, 1e-7), "250000 patients in all, the most that were measured are 300"),
        (Question(3, 1000, 3.0, 1e-3), "take --delta 1e-05"),
        (Question(1, 500, 3.0, 1e-5, "secure-sum"), "at least two sites"),
    ],
)
def test_where_no_row_is_near_there_is_no_advice(question: Question, reason: str) -> None:
    with pytest.raises(PlanRefused, match=reason) as refusal:
        advise(question, FEW)
    assert refusal.value.exit_code == REFUSED
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("change", [{"sites": 0}, {"patients": 0}, {"epsilon": math.nan}, {"epsilon": math.inf}, {"vote": 3.0}])
def test_nonsense_is_a_usage_error(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        advise(replace(ASKED, **change), FEW)


def test_one_site_has_no_sum_and_two_sites_no_colluder() -> None:
    assert advise(Question(1, 300, 8.0, 1e-4), FEW).mechanism == "local"
    rests_on = advise(Question(2, 150, 3.0, 1e-4), FEW).plan.privacy.secure_sum
    assert rests_on is not None
    assert rests_on.colluding == 0


@pytest.mark.parametrize("mechanism", ["local", "secure-sum"])
def test_the_plan_it_prints_passes_plan_check_and_is_as_loud_as_the_law_says(tmp_path: Path, mechanism: str) -> None:
    question = Question(4, 120, 5.0, 1e-5, mechanism, vote=2.0)  # type: ignore[arg-type]  # a literal
    advice = advise(question, SHIPPED)
    keep(tmp_path / "plan.toml", as_toml(advice.plan))
    plan = TrainingPlan.load(tmp_path / "plan.toml")
    assert plan == advice.plan
    (stage,), noise = check(plan).stages, loudness(question, SHIPPED.weights)[question.mechanism or "local"]
    assert stage.pooled == pytest.approx(noise, rel=0.02 if mechanism == "local" else 0.15), "sums are accounted more loosely"
    assert json.loads(advice.as_json())["plan"] == json.loads(plan.canonical())
    with pytest.raises(UsageError, match="there already"):
        keep(tmp_path / "plan.toml", "")


def test_secure_sums_are_quieter_by_the_accountant_too() -> None:
    pooled = [check(plan_of(ASKED, kind, SHIPPED.stage)).stages[0].pooled for kind in ("secure-sum", "local")]  # type: ignore[arg-type]
    assert pooled[0] < pooled[1]


@given(st.floats(1e-3, 2), st.floats(1, 10))
def test_more_noise_is_never_expected_to_learn_more(noise: float, times: float) -> None:
    for reference in (FEW, SHIPPED):
        for measure in ("distance", "frechet", "ageing"):
            quiet, loud = (reference.expected(measure, each).share for each in (noise, noise * times))
            assert loud <= quiet + 1e-12
            assert quiet <= 1


def test_the_file_is_read_as_it_is_written() -> None:
    assert Reference.model_validate_json(as_bytes(SHIPPED)) == SHIPPED
    assert {one.mechanism for one in SHIPPED.points} == {"local", "secure-sum"}
