"""A server reads how well the model fits a hospital, to find one patient in it. Beside each attack: the code it works on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch

from braing3n_core.fit import losses
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage
from braing3n_core.training import Prepared, draw_rows, prepare, row_loss
from privacy.bounded_sum import UNITS, BoundedSum, noised_sum, summed
from privacy.egress import FIT_STAGE, Egress, Fit, fit_purpose
from privacy.errors import EgressRefused, MechanismRefused
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from privacy.randomness import SecretNoise
from tests.client.studies import brain, patient, request, site, study
from tests.small import stage

PRIVACY = {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.05}
PLAN = study(privacy=PRIVACY)
START = request(PLAN).digest
MIDDLE, REACH, DECLARED = 1.0, 1.0, 50
PEOPLE = [0.2, 0.7, 1.1, 1.9, 0.4, 0.9]                      # losses of ordinary patients
Sums = Callable[[Sequence[float]], float]


def ours(values: Sequence[float]) -> float:
    return summed(values, MIDDLE, REACH).units


def without_clipping(values: Sequence[float]) -> float:
    return sum(UNITS * (value - MIDDLE) / REACH for value in values)


def a_mean_over_who_is_there(values: Sequence[float]) -> float:
    """The declared number times a mean that was divided by the true one."""
    return DECLARED * ours(values) / len(values)


def most_moved(sums: Sums, values: Sequence[float]) -> float:
    """By how much the patient who matters most moves what noise is added to."""
    whole = sums(values)
    return max(abs(whole - sums([*values[:gone], *values[gone + 1 :]])) for gone in range(len(values)))


@pytest.mark.parametrize("odd", [1e9, math.inf, math.nan, -1e9], ids=str)
def test_a_patient_with_an_absurd_loss_stands_out_by_no_more_than_is_paid_for(odd: float) -> None:
    assert most_moved(ours, [*PEOPLE, odd]) == UNITS
    broken = most_moved(without_clipping, [*PEOPLE, odd])
    assert not broken <= UNITS, "the same patient without a clip"


def test_how_many_patients_there_are_is_told_by_no_divisor() -> None:
    assert most_moved(ours, PEOPLE) <= UNITS
    assert most_moved(a_mean_over_who_is_there, PEOPLE) > 5 * UNITS, "the same sums over the true count"


def with_draws_in_line(model: Brain, plan: Stage, people: Sequence[Prepared]) -> list[float]:
    """One stream of masks and noise for all: whoever is missing moves the draws of those who follow."""
    draws, loss = torch.Generator().manual_seed(0), row_loss(plan.name)
    with torch.no_grad():
        return [float(loss(model, draw_rows(plan.name, one.tensors, model, 16, draws)).mean()) for one in people]


def test_a_missing_patient_moves_nobody_else_s_loss() -> None:
    plan, model = stage("generator"), brain(PLAN)
    people = [prepare("generator", model, patient(number).scans) for number in range(6)]
    assert losses(model, plan, people[1:]) == losses(model, plan, people)[1:]
    broken, rest = with_draws_in_line(model, plan, people)[1:], with_draws_in_line(model, plan, people[1:])
    assert all(one != other for one, other in zip(broken, rest, strict=True)), "the others give the missing one away"


EVENT = SampledGaussian(FIT_STAGE, 8.0, 1.0, 1)
TRIES = 2000


def test_asking_many_times_gives_one_answer_at_one_price(tmp_path: Path) -> None:
    answers = [site(tmp_path, PLAN).round(replace(request(PLAN), end="before")).header["units"] for _ in range(5)]
    assert len(set(answers)) == 1
    with Ledger(tmp_path / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert len(ledger.events) == 1


def test_fresh_noise_at_each_ask_would_be_averaged_away() -> None:
    """What the test above rules out: the mean of many answers finds one patient."""
    secret = SecretNoise()
    apart = [mean(noised_sum(BoundedSum(units), EVENT, secret) for _ in range(TRIES)) for units in (0, UNITS)]
    assert apart[1] - apart[0] > UNITS / 4, "eight bounds of noise, and it is gone"


@pytest.mark.slow
def test_a_plan_that_differs_by_one_word_pays_again_and_soon_gets_nothing(tmp_path: Path) -> None:
    kinds = []
    for seed in range(60):
        plan = study(privacy=PRIVACY | {"fit_share": 0.5}, seed=seed)
        kinds.append(site(tmp_path, plan).round(replace(request(plan), end="before")).header["kind"])
    told = kinds.count("fit")
    assert 1 <= told < len(kinds)
    assert kinds == ["fit"] * told + ["refusal"] * (len(kinds) - told), "refused from some time on, for ever"
    with Ledger(tmp_path / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert ledger.epsilon <= PLAN.privacy.epsilon


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", 1e-5)


@pytest.fixture
def egress(ledger: Ledger, tmp_path: Path) -> Egress:
    return Egress(ledger, tmp_path / "audit.jsonl", "north")


def fit(ledger: Ledger, **changes: object) -> Fit:
    paid = ledger.reserve(EVENT, fit_purpose(PLAN.digest, "decoder", "before"), 8.0)
    fields = {"site": "north", "plan": PLAN.digest, "stage": "decoder", "end": "before", "start": START,
              "reservation": paid, "units": 41} | changes    # fmt: skip
    return Fit(**fields)  # type: ignore[arg-type]  # wrong types are the test


def test_one_charge_lets_one_number_out(ledger: Ledger, egress: Egress) -> None:
    first = fit(ledger)
    assert [egress.send(first).header["units"] for _ in range(2)] == [41, 41]
    for other in ({"units": 42}, {"start": "c" * 64}):
        with pytest.raises(MechanismRefused, match="already released another value"):
            egress.send(replace(first, **other))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    "change",
    [{"units": 0.5}, {"units": True}, {"units": 10**16}, {"units": "sub-01"}, {"units": None}, {"units": [1]},
     {"end": "in the middle"}, {"end": ["before"]}, {"start": "sub-01"}, {"plan": "a"}, {"stage": "../decoder"},
     {"site": "south"}, {"reservation": None}],
    ids=str,
)  # fmt: skip
def test_nothing_but_one_whole_number_leaves(
    ledger: Ledger, egress: Egress, tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(EgressRefused):
        egress.send(fit(ledger, **change))
    assert not (tmp_path / "audit.jsonl").exists()


def test_no_other_charge_pays_for_a_fit(ledger: Ledger, egress: Egress) -> None:
    round_ = ledger.reserve(SampledGaussian("decoder", 8.0, 0.5, 2), fit_purpose(PLAN.digest, "decoder", "before"), 8.0)
    ends = [fit_purpose(PLAN.digest, "decoder", "after"), fit_purpose(PLAN.digest, "generator", "before"),
            fit_purpose(hashlib.sha256(b"other").hexdigest(), "decoder", "before")]  # fmt: skip
    with pytest.raises(EgressRefused, match="not for a fit"):
        egress.send(fit(ledger, reservation=round_))
    for purpose in ends:
        with pytest.raises(EgressRefused, match="for something else"):
            egress.send(fit(ledger, reservation=ledger.reserve(EVENT, purpose, 8.0)))
