"""The trajectory sees the first visit, the years and the conditions, and a hospital's pace moves changes in proportion."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import UsageError
from tests.small import SMALL, small_brain

MODEL = small_brain("trajectory")


def asked(years: float = 5.0, **conditions: object) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    z, first = (torch.randn(1, MODEL.tokens, SMALL.latent_width, generator=draw) for _ in range(2))
    codes = MODEL.codes([{"age": 60.0, "sex": "F"} | conditions])
    return MODEL.years(z, torch.full((1,), 0.4), first, codes, torch.tensor([years]))


def test_years_conditions_and_the_first_visit_all_act() -> None:
    base = asked()
    assert base.shape == (1, MODEL.tokens, SMALL.latent_width)
    for other in (asked(years=15.0), asked(age=80.0), asked(sex="M"), asked(diagnosis="dementia"), asked(ventricles=40.0)):
        assert (other - base).abs().max() > 1e-6
    z = torch.randn(1, MODEL.tokens, SMALL.latent_width)
    t, codes, years = torch.full((1,), 0.4), MODEL.codes([{}]), torch.tensor([5.0])
    one, two = (MODEL.years(z, t, first, codes, years) for first in (z, -z))
    assert (one - two).abs().max() > 1e-6


def test_a_pace_moves_every_sample_of_the_change_by_it_and_twice_as_far_in_twice_the_years() -> None:
    """Where the pace says D at the longest gap, the flow's data move by D times years over the longest gap."""
    from braing3n_core.flow import heun

    moved = small_brain("trajectory")
    draw = torch.Generator().manual_seed(3)
    pace = moved.years.pace
    pace.basis.normal_(generator=draw)
    z, first = (torch.randn(2, moved.tokens, SMALL.latent_width, generator=draw) for _ in range(2))
    codes, years = moved.codes([{"age": 30.0}] * 2), torch.tensor([5.0, 10.0])

    def sampled(weight: float) -> torch.Tensor:
        with torch.no_grad():
            pace.respond.weight.fill_(weight)
            return heun(lambda at, t: moved.years(at, t, first, codes, years), z, 4)

    change = sampled(0.1) - sampled(0.0)
    with torch.no_grad():
        pace.respond.weight.fill_(0.1)
        whole = pace(codes)
    assert torch.allclose(change, whole * (years / 20.0)[:, None, None], atol=2e-4)
    assert float(whole.abs().max()) > 0.01


def test_a_model_without_one_says_so() -> None:
    with pytest.raises(UsageError, match="take one with a trajectory"):
        _ = small_brain().years
