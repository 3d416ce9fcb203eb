"""Discrete tokens read, edited and written back: nothing the digits can say is lost, and an edit stays where it was made."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n_core.data.phantom import phantoms
from braing3n_core.errors import UsageError
from braing3n_core.metrics import psnr
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.models.quantizer import FiniteScalar, edit
from braing3n_core.models.trainable import select_trainable
from braing3n_core.plan import Hospital
from braing3n_core.prior import SHIPPED, load_prior, read_prior
from braing3n_core.training import draw_rows, row_loss
from tests.client.studies import study
from tests.small import SMALL, small_brain, stage

LEVELS = 15
TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def prior() -> Brain:
    return read_prior(SHIPPED / "tiny.safetensors")


@pytest.fixture(scope="module")
def people() -> torch.Tensor:
    return torch.stack([volume for volume, _ in phantoms(TINY, 4, 4242, Hospital(name="new"))])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 64), st.integers(0, 99))
def test_what_was_written_is_read_again(levels: int, seed: int) -> None:
    quantizer = FiniteScalar(levels)
    digits = torch.randint(levels, (2, 5, 3), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(quantizer.read(quantizer.write(digits)), digits)
    z = 3 * torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(quantizer(z), quantizer.write(quantizer.read(z)), atol=1e-5)
    assert torch.allclose(quantizer(quantizer(z)), quantizer(z), atol=1e-5), "quantizing twice is quantizing once"


def test_every_latent_has_digits_however_large() -> None:
    quantizer = FiniteScalar(5)
    assert quantizer.read(torch.tensor([[[-1e9, 0.0, 1e9]]])).tolist() == [[[0, 2, 4]]]


def test_gradients_pass_straight_through() -> None:
    z = torch.randn(1, 4, 3, requires_grad=True)
    (FiniteScalar(5)(z) * torch.arange(3.0)).sum().backward()
    assert torch.equal(z.grad, torch.arange(3.0).expand(1, 4, 3))


def test_digits_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 4"):
        FiniteScalar(5).write(torch.tensor([[[5]]]))
    with pytest.raises(UsageError, match="at least 2"):
        FiniteScalar(1)
    with pytest.raises(UsageError, match="token 4"):
        edit(torch.zeros(1, 4, 3, dtype=torch.long), 4, torch.zeros(3, dtype=torch.long))


def test_fifteen_levels_rebuild_a_brain_within_one_decibel_of_continuous(prior: Brain, people: torch.Tensor) -> None:
    inside, latents = prior.decoder.brain > 0, prior.encode(people)
    pairs = zip(people, prior.decode(latents), prior.decode(FiniteScalar(LEVELS)(latents)), strict=True)
    lost = [psnr(volume, smooth, inside) - psnr(volume, discrete, inside) for volume, smooth, discrete in pairs]
    assert max(lost) < 1.0
    assert min(lost) > 0, "digits cannot say more than the latents they came from"


def test_editing_one_token_changes_its_neighbourhood_alone(prior: Brain, people: torch.Tensor) -> None:
    """Nothing at all changes beyond two tokens; on average over nine tenths of the change is within one."""
    quantizer = FiniteScalar(LEVELS)
    digits = quantizer.read(prior.encode(people[:1]))
    before = prior.decode(quantizer.write(digits))
    _, h, w = TINY.tokens_per_axis
    axes = [torch.arange(side) // cut for side, cut in zip(TINY.shape, TINY.patch, strict=True)]
    cube = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    near = []
    for token in range(0, prior.tokens, 12):
        place = int(prior.decoder.inside[token])
        here = torch.tensor([place // (h * w), place // w % h, place % w])
        away = (cube - here.view(3, 1, 1, 1)).abs().amax(0)
        after = prior.decode(quantizer.write(edit(digits, token, (digits[:, token] + LEVELS // 2) % LEVELS)))
        change = (after - before)[0, 0].square()
        assert float(change[away > 2].max()) == 0
        near.append(float(change[away <= 1].sum() / change.sum()))
    assert sum(near) / len(near) > 0.9


def test_a_brain_with_a_quantizer_decodes_and_learns_from_discrete_tokens_alone() -> None:
    model, z = small_brain(), torch.randn(1, small_brain().tokens, SMALL.latent_width)
    names, smooth = list(model.state_dict()), model.decode(z)
    model.quantizer = FiniteScalar(5)
    assert list(model.state_dict()) == names
    digits = model.quantizer.read(z)
    assert torch.allclose(model.decode(z), model.decoder(model.quantizer.write(digits)), atol=1e-5)
    assert not torch.allclose(model.decode(z), smooth, atol=1e-4)
    select_trainable(model, stage("decoder", "all"), seed=0)
    x = torch.rand(2, 1, *SMALL.shape)
    data = (model.encoder(model.cubes(x)).detach(), x)
    row_loss("decoder")(model, draw_rows("decoder", data, model, 2, torch.Generator().manual_seed(0))).sum().backward()
    assert model.projection.weight.grad is not None
    assert float(model.projection.weight.grad.abs().sum()) > 0, "the gradient passes the rounding"


def test_a_plan_asks_for_discrete_tokens() -> None:
    plan = study(quantizer="fsq:15")
    quantizer = load_prior(plan).quantizer
    assert quantizer is not None
    assert quantizer.levels == 15
    assert load_prior(study()).quantizer is None
