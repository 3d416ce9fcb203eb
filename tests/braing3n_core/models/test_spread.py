"""Factors that nobody trained move no person; trained, they say how far apart people are, and one patient moves them little."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.data.cohort import Scan
from braing3n_core.errors import UsageError
from braing3n_core.generate import generate
from braing3n_core.models.brain import Brain
from braing3n_core.models.population import DIRECTIONS
from braing3n_core.models.spread import FREEDOM, Spread, lengths, scales
from braing3n_core.models.trainable import select_trainable
from braing3n_core.prior import SHIPPED, read_prior
from braing3n_core.training import drawn_once, prepare, row_loss
from privacy.dp_sgd import clipped_sum
from tests.small import SMALL, small_brain, stage

DRAW = torch.Generator().manual_seed(1)


def spreading() -> Brain:
    """A small model with orthogonal directions of mean square 1, as the prior's are, and factors of 1."""
    model = small_brain(spreads=True)
    size = model.centre.numel()
    axes = torch.linalg.qr(torch.randn(size, DIRECTIONS, generator=torch.Generator().manual_seed(2)))[0].T
    model.generator.population.basis.copy_((axes * size**0.5).reshape_as(model.generator.population.basis))
    with torch.no_grad():
        model.factors.logs.code.zero_()
    return model.requires_grad_(False)


MODEL = spreading()
POPULATION = MODEL.generator.population


def people(count: int) -> torch.Tensor:
    return torch.randn(count, *MODEL.centre.shape, generator=DRAW)


def test_without_factors_nobody_moves_and_a_model_without_any_says_so() -> None:
    made, middle = people(3), people(3)
    assert torch.allclose(MODEL.factors(POPULATION, made, middle), made, atol=1e-5)
    with pytest.raises(UsageError, match="as far apart as its prior's"):
        _ = small_brain().factors


def test_each_direction_and_all_else_are_scaled_by_factors_of_their_own() -> None:
    model, made, middle = spreading(), people(4), people(4)
    wanted = torch.linspace(0.2, 3.0, DIRECTIONS + 1)
    model.factors.logs.code.copy_(wanted.log())
    before, after = (lengths(POPULATION, one - middle) for one in (made, model.factors(POPULATION, made, middle)))
    assert torch.allclose(after, before * wanted, rtol=1e-3, atol=1e-5)


def test_lengths_are_those_of_the_parts_of_a_distance() -> None:
    gaps = people(5)
    found = lengths(POPULATION, gaps)
    whole = gaps.square().flatten(1).mean(1)
    assert found.shape == (5, DIRECTIONS + 1)
    assert torch.allclose(found.square().sum(1), whole, rtol=1e-4), "directions are orthogonal, so the parts add up"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=DIRECTIONS + 1, max_size=DIRECTIONS + 1), st.floats(-3, 3))
def test_no_patient_pulls_a_factor_by_more_than_the_freedom(far: list[float], log: float) -> None:
    spread = Spread()
    with torch.no_grad():
        spread.logs.code.fill_(log)
    spread.surprise(torch.tensor([far])).sum().backward()  # type: ignore[no-untyped-call]  # torch's
    grad = spread.logs.code.grad
    assert grad is not None
    assert bool((grad <= 1 + 1e-4).all())
    assert bool((grad >= -FREEDOM - 1e-4).all())


def test_scales_are_where_the_gradient_vanishes_and_one_far_patient_hardly_moves_them() -> None:
    wanted = torch.logspace(-1, 1, DIRECTIONS + 1)
    apart = wanted * torch.randn(4000, DIRECTIONS + 1, generator=DRAW)
    found, spread = scales(apart), Spread()
    with torch.no_grad():
        spread.logs.code.copy_(found.log())
    spread.surprise(apart).mean().backward()  # type: ignore[no-untyped-call]  # torch's
    grad = spread.logs.code.grad
    assert grad is not None
    assert float(grad.abs().max()) < 1e-3
    ratio = found / wanted
    assert float(ratio.max() / ratio.min()) < 1.15, "the same for every direction, so it cancels against the prior's own"
    outlier = torch.cat([apart[:200], 1e4 * wanted[None]])
    assert float((scales(outlier) / scales(apart[:200])).max()) < 1.05


def test_steps_with_clipped_gradients_come_to_those_scales() -> None:
    wanted = torch.linspace(0.3, 1.5, DIRECTIONS + 1)
    apart, model, chosen = wanted * torch.randn(300, 1, DIRECTIONS + 1, generator=DRAW), spreading(), stage("spread")
    select_trainable(model, chosen, 0)
    patients = [(one,) for one in apart]
    for _ in range(6):
        step = clipped_sum(model, patients, row_loss("spread"), 3.0, "fast").total.tensors["spread.logs.code"] / len(patients)
        with torch.no_grad():
            model.factors.logs.code.sub_(0.7 * step)
    assert torch.allclose(model.factors.logs.code.exp(), scales(apart.flatten(0, 1)), rtol=0.12)


def test_rows_hold_distances_in_the_prior_s_units_and_the_engines_agree() -> None:
    model, chosen = spreading(), stage("spread", views=3)
    scans = [Scan(torch.rand(1, *SMALL.shape, generator=DRAW), {"age": 20.0 + i, "sex": "F"}) for i in range(4)]
    rows, halves = ([drawn_once(prepare("spread", model, [one]), chosen, model, torch.Generator().manual_seed(5)).tensors
                     for one in scans] for model in (model, _with_usual(2.0)))  # fmt: skip
    assert rows[0][0].shape == (3, DIRECTIONS + 1)
    assert all(torch.allclose(one[0], 2 * half[0]) for one, half in zip(rows, halves, strict=True))
    select_trainable(model, chosen, 0)
    loop, fast = (clipped_sum(model, rows, row_loss("spread"), 0.5, engine) for engine in ("loop", "fast"))
    assert torch.allclose(loop.total.tensors["spread.logs.code"], fast.total.tensors["spread.logs.code"], rtol=1e-5)
    assert torch.allclose(torch.as_tensor(loop.norms), torch.as_tensor(fast.norms), rtol=1e-5)


def _with_usual(value: float) -> Brain:
    model = spreading()
    model.factors.usual.fill_(value)
    return model


@pytest.mark.slow
def test_generated_people_of_the_shipped_prior_are_as_far_apart_as_their_factors_say() -> None:
    plain, model = (read_prior(SHIPPED / "tiny.safetensors", spreads=wanted) for wanted in (False, True))
    rows = [{"age": 20.0 + 2 * i, "sex": "FM"[i % 2]} for i in range(16)]
    with torch.no_grad():
        same = generate(model, rows, 3, steps=4, guidance=1.0)
        assert torch.allclose(same, generate(plain, rows, 3, steps=4, guidance=1.0), atol=1e-5)
        model.factors.logs.code.fill_(-20.0)
        alike = generate(model, rows[:1] * 4, 3, steps=4, guidance=1.0)
    assert float(alike.std(0).mean()) < 0.15 * float(same.std(0).mean()), "all at the mean of people of one age and sex"
