"""Lesions that are asked for are led to, and nothing else is: people who asked for none stay as they were."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from braing3n_core.lesions import Lead, asked, lesioned, shown
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.quantizer import FiniteScalar
from braing3n_core.people import Wanted, images
from braing3n_core.plan import DEFAULT_VARIABLES, Continuous
from braing3n_core.prior import SHIPPED, read_prior
from tests.small import small_brain

SIDES = (9, 11, 13)


@pytest.fixture(scope="module")
def model() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors", parts=("FLAIR",))


@pytest.fixture(scope="module")
def latents(model: Brain) -> Tensor:
    return torch.randn(3, *model.centre.shape, generator=torch.Generator().manual_seed(1))


def head(*spots: tuple[int, float]) -> Tensor:
    """(n, 1, D, H, W): even tissue with a little texture, and for each spot a cube of so many voxels, brighter by so much."""
    volumes = 1 + 0.02 * torch.randn(len(spots), 1, *SIDES, generator=torch.Generator().manual_seed(0))
    for volume, (side, more) in zip(volumes, spots, strict=True):
        volume[0, 2 : 2 + side, 3 : 3 + side, 4 : 4 + side] += more
    return volumes


def count(volumes: Tensor) -> Tensor:
    everywhere = torch.ones(SIDES, dtype=torch.bool)
    return lesioned(volumes, everywhere, everywhere)


def test_what_was_asked_for_is_in_ml_and_nothing_else_is_taken_for_it() -> None:
    rows: list[dict[str, Condition]] = [{"lesions": 12.5, "age": 60.0}, {"lesions": None}, {"age": 60.0}, {"lesions": 0.0}]
    found = asked(small_brain(), rows)
    assert torch.equal(found.isnan(), torch.tensor([False, True, True, False]))
    assert found[[0, 3]].tolist() == [12.5, 0.0]


def test_a_variable_of_that_name_in_another_unit_is_not_a_load() -> None:
    counted = Continuous(kind="continuous", name="lesions", unit="count", low=0.0, high=50.0)
    other = small_brain()
    other.variables = tuple(counted if one.name == "lesions" else one for one in DEFAULT_VARIABLES)
    assert bool(asked(other, [{"lesions": 3.0}]).isnan().all())


def test_larger_and_brighter_spots_are_more_lesion_and_a_single_voxel_hardly_any() -> None:
    none, one, small, large, faint = count(head((0, 0.0), (1, 0.5), (3, 0.8), (5, 0.8), (5, 0.3))).tolist()
    assert none < 0.01 * math.prod(SIDES)
    assert one - none < 4
    assert one < small < large
    assert one < faint < large
    assert faint - none == pytest.approx(5**3, rel=0.3), "as many voxels as there are, edges by their share"


@given(st.floats(0.01, 100))
@settings(deadline=None)
def test_the_unit_of_brightness_does_not_matter(unit: float) -> None:
    volumes = head((0, 0.0), (4, 0.6))
    assert torch.allclose(count(unit * volumes), count(volumes), rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_steps_bring_a_person_to_what_was_asked(model: Brain, latents: Tensor) -> None:
    wanted, at = torch.tensor([0.0, 10.0, 40.0]), latents
    assert bool(((shown(model, at) - wanted).abs() > 1)[1:].all())
    for _ in range(12):
        at = Lead(model, wanted)(at)
    assert bool(((shown(model, at) - wanted).abs() < 0.5 + 0.1 * wanted).all())
    back = wanted.flip(0)
    for _ in range(12):
        at = Lead(model, back)(at)
    assert bool(((shown(model, at) - back).abs() < 0.5 + 0.1 * back).all()), "and down again"


def test_who_asked_for_nothing_is_left_alone_to_the_bit(model: Brain, latents: Tensor) -> None:
    assert Lead(model, torch.full((3,), math.nan))(latents) is latents
    moved = Lead(model, torch.tensor([math.nan, 20.0, math.nan]))(latents)
    assert torch.equal(moved[[0, 2]], latents[[0, 2]])
    assert not torch.equal(moved[1], latents[1])


def test_a_step_is_a_person_s_own_and_never_a_leap(model: Brain, latents: Tensor) -> None:
    wanted = torch.tensor([60.0, 20.0, 0.0])
    moved = Lead(model, wanted)(latents)
    alone = torch.cat([Lead(model, wanted[n : n + 1])(latents[n : n + 1]) for n in range(3)])
    assert torch.allclose(moved, alone, atol=1e-4)
    assert float((moved - latents).flatten(1).norm(dim=1).max()) <= 6.0001
    assert not moved.requires_grad


@pytest.mark.parametrize("slope", [0.0, math.nan, math.inf])
def test_who_has_no_slope_to_go_along_is_left_alone(
    model: Brain, latents: Tensor, slope: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braing3n_core.lesions.shown", lambda _, z: (z * slope).sum((1, 2)))
    assert torch.equal(Lead(model, torch.tensor([60.0, math.nan, 0.0]))(latents), latents)


def test_a_recipient_in_inference_mode_is_led_as_well(model: Brain, latents: Tensor) -> None:
    wanted = torch.tensor([10.0, math.nan, 30.0])
    with torch.inference_mode():
        found = Lead(model, wanted)(latents * 1)
        assert torch.allclose(found, Lead(model, wanted)(latents), atol=1e-5)


@pytest.mark.slow
def test_discrete_tokens_are_led_too(latents: Tensor) -> None:
    discrete = read_prior(SHIPPED / "tiny.safetensors", parts=("FLAIR",))
    discrete.quantizer = FiniteScalar(15)
    at = latents
    with torch.no_grad():
        for _ in range(12):
            at = Lead(discrete, torch.tensor([20.0, 20.0, 20.0]))(at)
        assert bool((shown(discrete, at) > 12).all())


@pytest.mark.slow
def test_who_is_not_led_has_the_flair_of_before_to_the_bit(model: Brain, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Wanted({"age": 50.0, "lesions": load}, n, 0.0, "FLAIR") for n, load in enumerate((None, 20.0, None))]
    led = images(model, rows, 3, steps=3, guidance=1.0)
    monkeypatch.setattr("braing3n_core.people.led", lambda velocity, _: velocity)
    plain = images(model, rows, 3, steps=3, guidance=1.0)
    assert torch.equal(led[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(led[1], plain[1], atol=1e-2)


@pytest.mark.slow
def test_lesions_show_on_the_flair_of_who_asked_and_the_t1w_stays(model: Brain) -> None:
    plain: dict[str, Condition] = {"modality": "T1w", "age": 65.0}
    rows = [Wanted({**plain, "lesions": load}, 0, 0.0, name) for load in (None, 0.0, 25.0) for name in ("T1w", "FLAIR")]
    made = images(model, rows, 3, steps=6, guidance=1.0)
    unasked, none, many = made[1::2]
    white, brain = model.decoder.style.tissue[1] > 0.4, model.decoder.brain > 0
    few, more = lesioned(torch.stack([none, many]), brain, white) * 0.064
    assert float(few) < 1
    assert 18 < float(more) < 32
    alone = images(model, rows[1:2], 3, steps=6, guidance=1.0)
    assert torch.allclose(alone[0], unasked, atol=1e-4), "asked beside others, or alone, or not at all"
