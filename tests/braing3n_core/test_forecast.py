"""A forecast is the person's own scan and what years change; a course of events is one, whenever it is looked at."""

from __future__ import annotations

import math

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.forecast import drawn_change, expected_change, forecast, later
from braing3n_core.generate import generate, noise_of
from tests.small import SMALL, small_brain

MODEL = small_brain("trajectory")
PEOPLE = [{"age": 40.0}, {"age": 60.0, "sex": "F"}]


def scans(count: int = 2) -> torch.Tensor:
    return generate(MODEL, PEOPLE[:count], 3, steps=2, guidance=1.0)


def test_no_change_leaves_the_scan_and_a_change_moves_what_it_decodes_to() -> None:
    volumes = scans()
    nothing = torch.zeros(2, MODEL.tokens, SMALL.latent_width)
    assert torch.allclose(later(MODEL, volumes, MODEL.encode(volumes), nothing), volumes, atol=1e-6)
    change = 0.1 * torch.ones_like(nothing)
    first = MODEL.encode(volumes)
    with torch.no_grad():
        expected = (volumes + MODEL.decode(first + change) - MODEL.decode(first)) * MODEL.decoder.brain
    assert torch.allclose(later(MODEL, volumes, first, change), expected.clamp(0, 1.3), atol=1e-6)


def test_where_the_flow_is_a_known_line_the_expectation_is_its_mean() -> None:
    """A field v(z, 1) = z - M has the mean M, and what an odd function of noise adds to it cancels."""
    model = small_brain("trajectory")
    mean = torch.randn(2, model.tokens, SMALL.latent_width)

    class Known(torch.nn.Module):
        scale = torch.tensor(0.5)

        def forward(self, z: torch.Tensor, t: torch.Tensor, first: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            assert bool((t == 1).all()), "asked at pure noise"
            return z - mean + 0.3 * z

    model.trajectory = Known()  # type: ignore[assignment]
    found = expected_change(model, torch.zeros_like(mean), model.codes(PEOPLE), torch.tensor([1.0, 2.0]))
    assert torch.allclose(found, 0.5 * mean, atol=1e-5)


@pytest.mark.parametrize("years", [0.0, -1.0, 20.5, math.nan, math.inf])
def test_years_nobody_was_trained_for_are_refused(years: float) -> None:
    codes, gap = MODEL.codes(PEOPLE[:1]), torch.tensor([years])
    with pytest.raises(UsageError, match="at most 20 years"):
        forecast(MODEL, scans(1), codes, gap)
    with pytest.raises(UsageError, match="at most 20 years"):
        drawn_change(MODEL, MODEL.encode(scans(1)), codes, gap, noise_of(MODEL, 1, 1), steps=2)


def test_a_forecast_is_a_function_of_the_scan_and_lies_in_the_brain() -> None:
    volumes, codes, gap = scans(), MODEL.codes(PEOPLE), torch.tensor([2.0, 9.0])
    one, two = (forecast(MODEL, volumes, codes, gap) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == volumes.shape
    assert one.min() >= 0
    assert one.max() <= 1.3
    assert float(one[:, :, MODEL.decoder.brain == 0].abs().max()) == 0
    assert not torch.allclose(one, volumes, atol=1e-3)
    alone = forecast(MODEL, volumes[1:], codes[1:], gap[1:])
    assert torch.allclose(one[1:], alone, atol=1e-5)
