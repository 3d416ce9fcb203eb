"""What is asked of a measured volume is what latents then read, all else stays, and what nobody asked for moves nobody."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core import metrics
from braing3n_core.errors import UsageError
from braing3n_core.generate import generate
from braing3n_core.models.brain import MEASURES
from braing3n_core.models.steering import Steering
from braing3n_core.morphometry import measures
from braing3n_core.plan import DEFAULT_VARIABLES, Continuous
from braing3n_core.prior import SHIPPED, read_prior
from tests.small import small_brain

DRAW = torch.Generator().manual_seed(3)
BRAIN = Continuous(kind="continuous", name="brain", unit="ml", low=500.0, high=2500.0, source="measured")


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 7, 3, generator=DRAW)


def fitted() -> Steering:
    """Of five volumes that are linear in latents."""
    steering, people = Steering(5, 7, 3), latents(400)
    steering.fit(people, people.flatten(1) @ torch.randn(21, 5, generator=DRAW) + 100, 1e-3)
    return steering


STEERING = fitted()


def test_a_linear_volume_is_read_back() -> None:
    steering, people, weights = Steering(2, 7, 3), latents(300), torch.randn(21, 2, generator=DRAW)
    steering.fit(people[:200], people[:200].flatten(1) @ weights + 7, 1e-6)
    assert torch.allclose(steering.read(people[200:]), people[200:].flatten(1) @ weights + 7, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.one_of(st.none(), st.floats(50, 150)), min_size=5, max_size=5), min_size=1, max_size=4))
def test_what_is_asked_is_read_and_rows_that_ask_nothing_stay(rows: list[list[float | None]]) -> None:
    wanted = torch.tensor([[math.nan if value is None else value for value in row] for row in rows])
    wanted[(wanted < STEERING.least) | (wanted > STEERING.most)] = math.nan
    people = latents(len(rows))
    brought = STEERING(people, wanted)
    asked = ~wanted.isnan()
    assert torch.allclose(STEERING.read(brought)[asked], wanted[asked], atol=0.05)
    still = ~asked.any(1)
    assert torch.equal(brought[still], people[still])
    assert torch.allclose(STEERING(people, STEERING.read(people)), people, atol=1e-3), "who has it already stays"


@pytest.mark.slow
def test_people_who_are_brought_to_volumes_are_spread_as_the_public_who_have_them() -> None:
    """Gaussian people conditioned after they were drawn have the covariance of those conditioned before."""
    steering, people, weights = Steering(1, 7, 3), latents(20_000), torch.randn(21, 1, generator=DRAW)
    steering.fit(people[:2000], people[:2000].flatten(1) @ weights, 1e-6)
    assert bool(steering.reaches(torch.tensor([[2.0]])).all())
    brought = steering(people, torch.full((len(people), 1), 2.0)).flatten(1)
    unit = weights[:, 0] / weights.norm()
    expected = torch.eye(21) - torch.outer(unit, unit)
    assert torch.allclose(torch.cov(brought.T), expected, atol=0.1)
    assert torch.allclose(brought.mean(0), 2.0 * weights[:, 0] / weights.square().sum(), atol=0.1)


def test_volumes_that_cannot_be_had_together_are_met_as_nearly_as_can_be() -> None:
    """The shipped constants: grey, white and fluid add up to the brain, whatever is asked."""
    model = read_prior(SHIPPED / "tiny.safetensors", parts=("steering",))
    people = 0.5 * torch.randn(3, *model.centre.shape, generator=DRAW)
    asked = {"brain": 1950.0, "gm": 1050.0, "wm": 605.0, "csf": 292.0}
    read = model.steered.read(model.steered(people, model.wanted_volumes([{}] * 3))).clone()
    wanted = torch.full_like(read, math.nan)
    for name, value in asked.items():
        wanted[:, MEASURES.index(name)] = value
    assert int(model.steered.reaches(wanted).sum()) == 12
    found = model.steered.read(model.steered(people, wanted))
    for name, value in asked.items():
        assert torch.allclose(found[:, MEASURES.index(name)], torch.tensor(value), atol=15.0), name


def test_a_model_without_constants_says_so_and_one_with_them_knows_what_is_asked() -> None:
    with pytest.raises(UsageError, match="take one that steers"):
        _ = small_brain().steered
    model = small_brain("steering")
    found = model.wanted_volumes([{"ventricles": 30.0, "age": 40.0, "brain": 1400.0}, {}])
    assert found.shape == (2, len(MEASURES))
    assert found[0, MEASURES.index("ventricles")] == 30.0
    assert int(found.isnan().sum()) == 2 * len(MEASURES) - 1, "the brain's volume is none of this model's variables"


def test_nobody_is_brought_to_a_volume_that_no_public_person_has() -> None:
    model = read_prior(SHIPPED / "tiny.safetensors", parts=("steering",))
    people = torch.randn(2, *model.centre.shape, generator=DRAW)
    brought = model.steered(people, model.wanted_volumes([{"ventricles": 30.0}, {"ventricles": 119.0}]))
    assert not torch.equal(brought[0], people[0])
    assert torch.equal(brought[1], people[1])


@pytest.mark.slow
def test_generated_people_have_the_ventricles_and_the_brain_that_they_were_asked_for() -> None:
    model = read_prior(SHIPPED / "tiny.safetensors", (*DEFAULT_VARIABLES, BRAIN), ("steering",))
    asked = [{"modality": "T1w", "ventricles": 25.0 + 18 * i / 23, "brain": 1720.0 + 16 * (7 * i % 24)} for i in range(24)]
    found = measures(generate(model, asked, 5, steps=6, guidance=1.0), model.preset)
    for name, least in (("ventricles", 0.95), ("brain", 0.9)):
        wanted = torch.tensor([float(row[name]) for row in asked]).numpy()
        assert metrics.correlation(wanted, found[f"{name}_ml"]) >= least
