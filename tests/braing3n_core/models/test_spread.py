"""Nobody moves before it is trained; trained, people lie where patients do and as far apart, and one patient changes little."""

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
from braing3n_core.models.spread import FREEDOM, Spread, student
from braing3n_core.models.trainable import select_trainable
from braing3n_core.prior import SHIPPED, read_prior
from braing3n_core.training import drawn_once, prepare, row_loss
from privacy.dp_sgd import clipped_sum
from tests.small import SMALL, small_brain, stage

DRAW = torch.Generator().manual_seed(1)
NUMBERS = ("spread.moves.code", "spread.logs.code")


def spreading(centre: float = 0.0, usual: float = 1.0) -> Brain:
    """A small model with orthogonal directions of mean square 1, as the prior's are, and an untrained spread."""
    model = small_brain("spread")
    size = model.centre.numel()
    axes = torch.linalg.qr(torch.randn(size, DIRECTIONS, generator=torch.Generator().manual_seed(2)))[0].T
    model.generator.population.basis.copy_((axes * size**0.5).reshape_as(model.generator.population.basis))
    model.spreading.centre.fill_(centre)
    model.spreading.usual.fill_(usual)
    with torch.no_grad():
        for number in (model.spreading.moves, model.spreading.logs):
            number.code.zero_()
    return model.requires_grad_(False)


MODEL = spreading(0.3, 0.5)
POPULATION = MODEL.generator.population


def people(count: int) -> torch.Tensor:
    return torch.randn(count, *MODEL.centre.shape, generator=DRAW)


def pull(spread: Spread, apart: torch.Tensor) -> torch.Tensor:
    """(2 R,) gradient of the summed loss."""
    spread.surprise(apart).sum().backward()  # type: ignore[no-untyped-call]  # torch's
    found = [number.code.grad for number in (spread.moves, spread.logs)]
    assert all(grad is not None for grad in found)
    return torch.cat([grad for grad in found if grad is not None])


def test_untrained_nobody_moves_and_a_model_without_says_so() -> None:
    made, middle = people(3), people(3)
    assert torch.allclose(MODEL.spreading(POPULATION, made, middle), made, atol=1e-5)
    with pytest.raises(UsageError, match="spread as its prior's are"):
        _ = small_brain().spreading


def test_people_end_where_it_says_as_far_apart_as_it_says_and_move_in_no_other_direction() -> None:
    model = spreading()
    made, middle = people(500), people(1).expand(500, -1, -1)
    location, scale = torch.linspace(-2, 2, DIRECTIONS), torch.linspace(0.2, 3.0, DIRECTIONS)
    before = POPULATION.along(made - middle)
    model.spreading.centre.copy_(before.mean(0))
    model.spreading.usual.copy_(before.std(0))
    model.spreading.logs.code.copy_(scale.log())
    model.spreading.moves.code.copy_(location / scale)
    moved = model.spreading(POPULATION, made, middle)
    after = model.spreading.apart(POPULATION, moved - middle)
    assert torch.allclose(after.mean(0), location, atol=1e-3)
    assert torch.allclose(after.std(0), scale, rtol=1e-3)
    change = moved - made
    assert torch.allclose(change, POPULATION.placed(POPULATION.along(change)), atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=DIRECTIONS, max_size=DIRECTIONS), st.floats(-3, 3), st.floats(-2, 2)
)
def test_a_patient_s_pull_is_bounded_wherever_the_patient_is(far: list[float], log: float, move: float) -> None:
    spread = Spread()
    with torch.no_grad():
        spread.logs.code.fill_(log)
        spread.moves.code.fill_(move)
    most = (FREEDOM + 1) / (2 * FREEDOM**0.5)                # of a location's, reached at the root of FREEDOM scales
    moves, logs = pull(spread, torch.tensor([far])).chunk(2)
    assert float(moves.abs().max()) <= most + 1e-3
    assert float(logs.max()) <= 1 + most * abs(move) + 1e-3
    assert float(logs.min()) >= -FREEDOM - most * abs(move) - 1e-3


def test_a_fit_is_where_the_pull_vanishes_and_one_far_patient_hardly_moves_it() -> None:
    location, scale = torch.linspace(-3, 3, DIRECTIONS), torch.logspace(-1, 1, DIRECTIONS)
    rows, spread = location + scale * torch.randn(4000, DIRECTIONS, generator=DRAW), Spread()
    spread.fit(rows)
    assert float(pull(spread, rows).abs().max()) < 1e-2 * len(rows) ** 0.5
    found = student(rows)
    assert torch.allclose(found[0], location, atol=0.6)
    ratio = found[1] / scale
    assert float(ratio.max() / ratio.min()) < 1.15, "the same for every direction, so it cancels against the prior's own"
    with_one = student(torch.cat([rows[:200], (location + 1e4 * scale)[None]]))
    alone = student(rows[:200])
    assert float(((with_one[0] - alone[0]).abs() / scale).max()) < 0.05
    assert float((with_one[1] / alone[1]).max()) < 1.05


def test_steps_with_clipped_gradients_come_there() -> None:
    location, scale = torch.linspace(-0.7, 0.7, DIRECTIONS), torch.linspace(0.5, 1.4, DIRECTIONS)
    rows, model, chosen = location + scale * torch.randn(300, 1, DIRECTIONS, generator=DRAW), spreading(), stage("spread")
    select_trainable(model, chosen, 0)
    patients = [(one,) for one in rows]
    for _ in range(8):
        total = clipped_sum(model, patients, row_loss("spread"), 4.0, "fast").total.tensors
        with torch.no_grad():
            model.spreading.moves.code.sub_(0.7 * total[NUMBERS[0]] / len(patients))
            model.spreading.logs.code.sub_(0.7 * total[NUMBERS[1]] / len(patients))
    there, apart = student(rows.flatten(0, 1))
    ends = model.spreading.logs.code.exp()
    assert torch.allclose(ends, apart, rtol=0.2)
    assert torch.allclose(ends * model.spreading.moves.code, there, atol=0.15)


def test_rows_are_coordinates_in_the_prior_s_units_and_the_engines_agree() -> None:
    chosen, model, wide = stage("spread", "all", views=3), spreading(), spreading(usual=2.0)
    scans = [Scan(torch.rand(1, *SMALL.shape, generator=DRAW), {"age": 20.0 + i, "sex": "F"}) for i in range(4)]
    rows, halves = ([drawn_once(prepare("spread", each, [one]), chosen, each, torch.Generator().manual_seed(5)).tensors
                     for one in scans] for each in (model, wide))                              # fmt: skip
    assert rows[0][0].shape == (3, DIRECTIONS)
    assert all(torch.allclose(one[0], 2 * half[0]) for one, half in zip(rows, halves, strict=True))
    select_trainable(model, chosen, 0)
    loop, fast = (clipped_sum(model, rows, row_loss("spread"), 0.5, engine) for engine in ("loop", "fast"))
    assert set(loop.total.tensors) == set(NUMBERS)
    for name in NUMBERS:
        assert torch.allclose(loop.total.tensors[name], fast.total.tensors[name], rtol=1e-5, atol=1e-6)
    assert torch.allclose(torch.as_tensor(loop.norms), torch.as_tensor(fast.norms), rtol=1e-5)


@pytest.mark.slow
def test_people_of_the_shipped_prior_are_spread_as_it_says() -> None:
    plain, model = (read_prior(SHIPPED / "tiny.safetensors", parts=parts) for parts in ((), ("spread",)))
    rows = [{"age": 20.0 + 2 * i, "sex": "FM"[i % 2]} for i in range(12)]
    with torch.no_grad():
        before = generate(model, rows, 3, steps=4, guidance=1.0)
        assert torch.allclose(before, generate(plain, rows, 3, steps=4, guidance=1.0), atol=1e-5)
        model.spreading.logs.code.fill_(-20.0)
        after = generate(model, rows, 3, steps=4, guidance=1.0)
    assert float((after - before).abs().mean()) > 0.005
    assert float(after.std(0).mean()) < 0.97 * float(before.std(0).mean()), "one place along every public direction"
