"""What is accounted is what happens: there is nowhere to say another rate, noise or number of steps than the event's."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy.dp_sgd import RowLoss, Rows
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian, SecureSummed
from privacy.integer_noise import rounded_bound
from privacy.mechanism import Tensors
from privacy.randomness import ReplayableNoise
from privacy.steps import DpSgd, SumOverSites, private_steps

Key = TypeVar("Key")
ROOT = Path(__file__).parents[2]
PEOPLE = [(torch.randn(1, 3, generator=torch.Generator().manual_seed(k)),) for k in range(6)]
EVENTS = st.builds(
    SampledGaussian, stage=st.just("any"), noise_multiplier=st.floats(0.1, 50), sample_rate=st.floats(0.05, 1),
    steps=st.integers(1, 6),
)  # fmt: skip


class Watched(DpSgd):
    """The real step, and what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.events: list[SampledGaussian] = []

    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        self.rates.append(rate)
        return super().draw(patients, rate)

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        self.events.append(event)
        return super().private_gradient(model, patients, row_loss, l2_bound, event)


def loss(model: nn.Module, rows: Rows) -> Tensor:
    return model(rows[0]).square().mean(1)


def steps(step: DpSgd, event: SampledGaussian, declared: int = 6) -> list[dict[str, Tensor]]:
    return list(private_steps(step, event, nn.Linear(3, 2), PEOPLE, lambda rows: rows, loss, 1.0, declared))


@settings(max_examples=20)
@given(EVENTS)
def test_every_step_has_the_rate_and_noise_that_were_paid_for_and_there_are_no_more(event: SampledGaussian) -> None:
    step = Watched()
    assert len(steps(step, event)) == event.steps
    assert step.rates == [event.sample_rate] * event.steps
    assert step.events == [event] * event.steps


def test_the_real_step_draws_at_the_events_rate_and_adds_its_noise() -> None:
    event = SampledGaussian("any", 20.0, 0.5, 300)
    rows_made = itertools.count()
    found = private_steps(DpSgd(), event, nn.Linear(3, 2), PEOPLE, lambda rows: (next(rows_made), rows)[1], loss, 1.0, 6)
    values = torch.cat([gradient["weight"].flatten() for gradient in found])
    assert abs(next(rows_made) / (300 * len(PEOPLE)) - 0.5) < 0.07, "six deviations of a binomial share"
    assert abs(float(values.std()) / (20.0 / (0.5 * 6)) - 1) < 0.1, "six deviations of a standard deviation"


def test_a_mismatch_cannot_be_written_down() -> None:
    """Rate, noise and number of steps are in the event's type alone."""
    taken = set(inspect.signature(private_steps).parameters)
    assert taken == {"step", "event", "model", "patients", "rows_of", "row_loss", "l2_bound", "declared"}


def test_nothing_else_samples_or_noises_patients_under_a_mechanism() -> None:
    """Only privacy/steps.py puts a sampler and a private gradient together; what trains without privacy has its own sampler."""
    homes = {
        "PoissonSampler": {
            "privacy/dp_sgd.py", "privacy/steps.py", "client/local_round.py", "simulations/bench/plain_fedavg.py",
        },
        "private_gradient": {"privacy/dp_sgd.py", "privacy/steps.py", "privacy/selftest.py", "simulations/bench/dp.py"},
    }  # fmt: skip
    for package in ("privacy", "braing3n_core", "client", "server", "simulations"):
        for path in (ROOT / package).rglob("*.py"):
            named = {getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
                     for node in ast.walk(ast.parse(path.read_text()))}  # fmt: skip
            for name, allowed in homes.items():
                assert name not in named or path.relative_to(ROOT).as_posix() in allowed, f"{path} uses {name}"


def test_the_divisor_is_the_rate_times_the_declared_size() -> None:
    torch.manual_seed(0)
    model, event = nn.Linear(3, 2), SampledGaussian("any", 1e-6, 1.0, 1)
    (six,), (twelve,) = (
        list(private_steps(DpSgd(), event, model, PEOPLE, lambda rows: rows, loss, 1.0, declared)) for declared in (6, 12)
    )
    assert torch.allclose(six["weight"], 2 * twelve["weight"], atol=1e-5)


def test_a_cohort_of_nobody_and_replayable_noise_are_refused() -> None:
    event = SampledGaussian("any", 1.0, 0.5, 1)
    with pytest.raises(MechanismRefused, match="declare at least one"):
        steps(DpSgd(), event, declared=0)
    with pytest.raises(MechanismRefused, match="state what happened"):
        steps(DpSgd(randomness=ReplayableNoise(1)), event)


SCALE, SIZE = 4096.0, 8                                      # whole numbers per 1; of Linear(3, 2)
SUM = SecureSummed("any", 1e-15, rounded_bound(1.0, SCALE, SIZE), SIZE, 1.0, 1, 3)


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_a_sum_over_sites_is_the_clipped_sum_rounded_whoever_has_whom(shares: int) -> None:
    model, step = nn.Linear(3, 2), SumOverSites(SCALE)
    exact = step.clipped_sum(model, PEOPLE, loss, 1.0)
    found = step.private_gradient(model, PEOPLE, loss, 1.0, replace(SUM, shares=shares))
    assert set(found) == set(exact)
    assert all(torch.allclose(found[name], exact[name], atol=len(PEOPLE) / SCALE) for name in exact)
    assert all(not tensor.any() for tensor in step.private_gradient(model, [], loss, 1.0, SUM).values())


def test_all_noise_of_a_sum_is_the_event_s() -> None:
    variance = 4.0 * SCALE**2
    event = replace(SUM, noise_variance=variance, steps=400)
    drawn = [torch.cat([t.flatten() for t in one.values()]) for one in
             private_steps(SumOverSites(SCALE), event, nn.Linear(3, 2), [], lambda rows: rows, loss, 1.0, 1)]
    assert torch.stack(drawn).std() == pytest.approx(2.0, rel=0.06), "five deviations of 3200 numbers"


@pytest.mark.parametrize("wrong", [{"size": 7}, {"l2_bound": SUM.l2_bound / 2}])
def test_a_sum_of_other_numbers_than_were_paid_for_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(MechanismRefused, match="other numbers"):
        SumOverSites(SCALE).private_gradient(nn.Linear(3, 2), PEOPLE, loss, 1.0, replace(SUM, **wrong))  # type: ignore[arg-type]
