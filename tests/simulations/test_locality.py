"""An edit stays where it was made, the numbers say so, and the picture shows that place."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from braing3n_core.errors import UsageError
from simulations import locality
from tests.small import SMALL, small_brain

MODEL = small_brain()
LATENTS = torch.randn(1, MODEL.tokens, SMALL.latent_width, generator=torch.Generator().manual_seed(1))


def test_distance_counts_tokens_on_a_grid_with_three_different_sides() -> None:
    token = locality.middle(MODEL)
    away, (d, h, w) = locality.distance(MODEL, token), locality.place(MODEL, token)
    p, q, r = SMALL.patch
    assert away.shape == SMALL.shape
    assert int((away == 0).sum()) == SMALL.patch_voxels
    assert int(away[d * p, h * q, w * r]) == 0
    assert int(away[d * p - 1, h * q, w * r]) == int(away[d * p, h * q, w * r + r]) == 1


def test_a_decoder_without_neighbours_changes_the_own_cube_alone_and_one_with_them_does_not() -> None:
    model, token = small_brain(), locality.middle(MODEL)
    with_neighbours = locality.edited(model, LATENTS, token, 15)
    assert 0 < with_neighbours.own < 1
    assert with_neighbours.own < with_neighbours.near <= 1
    with torch.no_grad():
        model.decoder.leave.weight.zero_()
    alone = locality.edited(model, LATENTS, token, 15)
    assert alone.own == pytest.approx(1)
    assert alone.near == pytest.approx(1)
    assert alone.beyond == 0


def test_the_picture_is_of_the_edited_place_and_the_words_name_it() -> None:
    one = locality.edited(MODEL, LATENTS, 3, 15)
    words = "\n".join(locality.told(one, locality.many(MODEL, LATENTS, 15)))
    assert f"token 3: {one.own:.1%}" in words
    image = np.asarray(Image.open(io.BytesIO(locality.picture(MODEL, one))).convert("RGB"), np.int64)
    red, green, blue = (image[..., channel] for channel in range(3))
    assert ((red > 200) & (green > 120) & (green < 190) & (blue < 60)).any(), "the cube's outline"
    with pytest.raises(UsageError, match="token 999"):
        locality.edited(MODEL, LATENTS, 999, 15)
