"""The networks on a grid whose sides all differ, and the three gradient engines on the real networks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.models.brain import Brain
from braing3n_core.models.population import MISSING
from braing3n_core.models.presets import PRESETS
from braing3n_core.models.trainable import select_trainable
from braing3n_core.plan import DEFAULT_VARIABLES
from braing3n_core.training import draw_rows, pairs_of, row_loss
from privacy.dp_sgd import clipped_sum, trainable
from privacy.mechanism import l2_norm
from tests.small import SMALL, small_brain, stage


def volumes(count: int) -> torch.Tensor:
    return torch.rand(count, 1, *SMALL.shape, generator=torch.Generator().manual_seed(1))


def test_nothing_lights_up_outside_the_brain() -> None:
    model = small_brain()
    decoded = model.decode(torch.randn(2, model.tokens, SMALL.latent_width))
    assert decoded.shape == (2, 1, *SMALL.shape)
    assert decoded[:, :, model.decoder.brain == 0].abs().max() == 0
    assert decoded.abs().max() > 0


def test_the_decoder_starts_at_the_public_mean() -> None:
    torch.manual_seed(0)
    model = type(small_brain())(SMALL, small_brain().variables)
    model.decoder.mean.fill_(0.5)
    decoded = model.decode(torch.randn(1, model.tokens, SMALL.latent_width))
    assert torch.allclose(decoded[0, 0], 0.5 * model.decoder.brain)


def test_encoding_draws_nothing() -> None:
    model, x = small_brain(), volumes(2)
    assert torch.equal(model.encode(x), model.encode(x))


def test_a_missing_condition_is_not_a_zero_one() -> None:
    model = small_brain()
    given, missing, twice = model.codes([{"age": 18.0}, {}, {"age": None}])
    assert given[0] == 0
    assert missing[0] == MISSING
    assert torch.equal(missing, twice)
    z, t = torch.randn(1, model.tokens, SMALL.latent_width), torch.full((1,), 0.5)
    assert not torch.allclose(model.generator(z, t, given[None]), model.generator(z, t, missing[None]))


def test_every_condition_reaches_the_generator() -> None:
    model = small_brain()
    z, t = torch.randn(1, model.tokens, SMALL.latent_width), torch.full((1,), 0.5)
    base = model.codes([{}])
    for column, variable in enumerate(model.variables):
        changed = base.clone()
        changed[0, column] = 0.0
        difference = (model.generator(z, t, changed) - model.generator(z, t, base)).abs().max()
        assert difference > 1e-6, f"{variable.name} changes nothing"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("encoder", "all"), ("encoder", "lora:2"), ("decoder", "all"), ("decoder", "group:style"), ("decoder", "group:output"),
        ("generator", "all"), ("generator", "lora:2"), ("generator", "group:conditions"), ("generator", "group:ends"),
        ("trajectory", "all"), ("trajectory", "lora:2"), ("trajectory", "group:pace"),
    ],
)
def test_the_engines_agree_on_the_networks_that_are_trained(name: str, what: str) -> None:
    model = small_brain(*{name} & {"trajectory"})
    chosen = stage(name, what)
    if model.trajectory is not None:
        model.trajectory.pace.basis.normal_(generator=torch.Generator().manual_seed(1))
    select_trainable(model, chosen, seed=3)
    x = volumes(3)
    visits = [{"age": age, "sex": "F"} for age in (30.0, 34.0, 41.0)]
    data = {
        "encoder": (model.cubes(x),),
        "decoder": (model.encoder(model.cubes(x)).detach(), x),
        "generator": (model.encode(x).detach(), model.codes([{"age": 30.0, "sex": "F"}] * 3)),
        "trajectory": pairs_of(model, model.encode(x).detach(), visits) if name == "trajectory" else (),
    }[name]
    draw = torch.Generator().manual_seed(2)
    patients = [draw_rows(chosen.name, data, model, rows, draw) for rows in (1, 3)]
    loop, fast, witness = (clipped_sum(model, patients, row_loss(chosen.name), 0.01, e) for e in ("loop", "fast", "opacus"))
    assert loop.norms.min() > 0
    for other in (fast, witness):
        assert set(loop.total.tensors) == set(trainable(model)) == set(other.total.tensors)
        assert torch.allclose(loop.norms, other.norms, rtol=1e-5)
        moved = l2_norm({k: loop.total.tensors[k] - other.total.tensors[k] for k in loop.total.tensors})
        assert moved <= 1e-5 * l2_norm(loop.total.tensors)


def test_tiny_is_what_the_documentation_says() -> None:
    tiny = PRESETS["tiny"]
    assert tiny.shape == (48, 48, 48)
    assert tiny.generator_width >= tiny.latent_width


@pytest.mark.parametrize("patch", [(16, 24, 2), (2, 24, 20), (16, 4, 10), (4, 8, 2)])
def test_tokens_may_be_slabs_or_bricks(patch: tuple[int, int, int]) -> None:
    """Down to one token a slice: the 2.5-D tokenizer."""
    torch.manual_seed(0)
    preset = dataclasses.replace(SMALL, patch=patch)
    model = Brain(preset, DEFAULT_VARIABLES)
    x = volumes(2)
    latents = model.encode(x)
    assert latents.shape == (2, model.tokens, preset.latent_width)
    assert model.decode(latents).shape == x.shape
    for name, data in (("encoder", (model.cubes(x),)), ("decoder", (model.encoder(model.cubes(x)), x))):
        rows = draw_rows(name, data, model, 2, torch.Generator().manual_seed(1))
        assert row_loss(name)(model, rows).isfinite().all()


def test_a_patch_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="even sides"):
        dataclasses.replace(SMALL, patch=(4, 8, 1))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_holds_together(name: str) -> None:
    preset = PRESETS[name]
    assert preset.generator_width >= preset.latent_width
    for width, heads in ((preset.encoder_width, preset.encoder_heads), (preset.generator_width, preset.generator_heads)):
        assert width % heads == 0
    millimetres = [side * mm for side, mm in zip(preset.shape, preset.spacing_mm, strict=True)]
    assert all(180 <= extent <= 240 for extent in millimetres), "a head fits"


@pytest.mark.parametrize("parts", [("sterring",), ("T1w",), "spread"])
def test_a_part_there_is_none_of_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="there are trajectory, spread, steering, FLAIR"):
        Brain(SMALL, DEFAULT_VARIABLES, parts)
