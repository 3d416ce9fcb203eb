"""A population's shift is the prior's nothing until it is trained, and then moves samples by what it says and no more."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.flow import heun
from braing3n_core.models.population import DIRECTIONS
from braing3n_core.prior import SHIPPED, read_prior
from tests.small import SMALL, small_brain


def moved(**known: float | str) -> torch.Tensor:
    """(N, C) shift of one person under random directions and responses."""
    model = small_brain()
    model.generator.population.basis.normal_(generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shift: torch.Tensor = model.generator.population(model.codes([known]))[0]
    return shift


def test_an_untrained_population_leaves_the_prior_as_it_is() -> None:
    model = small_brain()
    z, t, codes = torch.randn(2, model.tokens, SMALL.latent_width), torch.full((2,), 0.5), model.codes([{"age": 40.0}, {}])
    with torch.no_grad():
        model.generator.population.respond.weight.zero_()
        before = model.generator(z, t, codes)
        model.generator.population.basis.normal_()
        assert torch.equal(model.generator(z, t, codes), before)


@pytest.mark.slow
def test_a_shift_moves_every_sample_by_itself_and_nothing_else() -> None:
    model = small_brain()
    population = model.generator.population
    population.basis.normal_(generator=torch.Generator().manual_seed(1))
    noise, codes = torch.randn(2, model.tokens, SMALL.latent_width), model.codes([{"age": 40.0}, {}])

    def sample() -> torch.Tensor:
        return heun(lambda z, t: model.generator(z, t, codes), noise, 200)

    with torch.no_grad():
        shift = population(codes)
        trained = population.respond.weight.clone()
        population.respond.weight.zero_()
        before = sample()
        population.respond.weight.copy_(trained)
        # Starting noise is not shifted, so the two agree as the steps grow finer.
        assert torch.allclose(sample() - before, shift, atol=0.02 * float(shift.abs().max()) + 0.02)


def test_what_all_have_in_common_moves_everybody_alike_by_a_mean_square_of_its_norm() -> None:
    model = small_brain()
    codes = model.codes([{"age": 40.0}, {"sex": "M"}, {}])
    with torch.no_grad():
        model.generator.population.basis.normal_(generator=torch.Generator().manual_seed(1))
        model.generator.common.code.zero_()
        before = model.generator.shift(codes)
        code = model.generator.common.code.normal_(generator=torch.Generator().manual_seed(2))
        code /= code.norm()
        moved = model.generator.shift(codes) - before
    assert torch.allclose(before, model.generator.population(codes), atol=1e-5)
    assert torch.allclose(moved[0], moved[1], atol=1e-4)
    assert torch.allclose(moved[0], moved[2], atol=1e-4)
    assert abs(float(moved[0].square().mean()) - 1) < 1e-3


def test_the_shipped_prior_has_nothing_in_common_with_anybody() -> None:
    assert not read_prior(SHIPPED / "tiny.safetensors").generator.common.code.any()


def test_what_is_missing_moves_nothing_by_its_value() -> None:
    nothing = moved()
    assert not torch.equal(moved(age=40.0), nothing)
    assert not torch.equal(moved(sex="M"), nothing)
    assert torch.equal(moved(sex="F"), nothing), "the first level is the reference"


def test_age_means_something_else_once_the_anatomy_is_asked_for() -> None:
    ageing = moved(age=80.0) - moved(age=30.0)
    ageing_at_given_anatomy = moved(age=80.0, ventricles=30.0) - moved(age=30.0, ventricles=30.0)
    assert not torch.allclose(ageing, ageing_at_given_anatomy, atol=1e-3)


def test_there_are_few_weights_to_keep_private() -> None:
    population = small_brain().generator.population
    weights = sum(parameter.numel() for parameter in population.parameters())
    assert weights == DIRECTIONS * population.features(torch.zeros(1, 6)).shape[1] == 256
