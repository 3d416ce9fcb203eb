"""Images of synthetic people: which person, which visit, which modality, and nothing else, decide one."""

from __future__ import annotations

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.generate import generate
from braing3n_core.models.brain import Condition
from braing3n_core.people import Wanted, images, translated
from tests.small import small_brain

PEOPLE: list[dict[str, Condition]] = [{"age": 40.0, "sex": "F"}, {"age": 70.0, "sex": "M"}]
MODEL = small_brain("trajectory", "FLAIR")


def made(wanted: list[Wanted], seed: int = 7) -> torch.Tensor:
    return images(MODEL, wanted, seed, steps=3, guidance=1.0)


def test_first_visits_are_the_generators_and_later_ones_follow_from_the_person_alone() -> None:
    wanted = [Wanted(PEOPLE[n], n, years) for n, years in ((0, 0.0), (0, 3.0), (1, 0.0), (1, 6.0))]
    all_of_them = made(wanted)
    plain = generate(MODEL, PEOPLE, 7, steps=3, guidance=1.0)
    assert torch.allclose(all_of_them[[0, 2]], plain, atol=1e-5)
    assert not torch.allclose(all_of_them[1], all_of_them[0], atol=1e-3)
    alone = made(wanted[3:])
    assert torch.allclose(all_of_them[3:], alone, atol=1e-5)
    assert not torch.allclose(made(wanted[3:], seed=8), alone, atol=1e-3)


def test_another_modality_follows_from_the_person_and_the_visit_alone() -> None:
    rows = [Wanted(PEOPLE[0], 0), Wanted(PEOPLE[0], 0, 0.0, "FLAIR"), Wanted(PEOPLE[1], 1), Wanted(PEOPLE[1], 1, 5.0, "FLAIR")]
    together = made(rows)
    for place, row in enumerate(rows):
        assert torch.allclose(together[place : place + 1], made([row]), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert not torch.allclose(made([Wanted(PEOPLE[1], 1, 0.0, "FLAIR")]), together[3:], atol=1e-3)
    outside = MODEL.decoder.brain == 0
    assert float(together[:, 0][:, outside].abs().max()) == 0


@torch.no_grad()
def test_guidance_of_a_variable_acts_on_another_modality_too() -> None:
    draw = torch.Generator().manual_seed(2)
    latents, noise = (torch.randn(2, *MODEL.centre.shape, generator=draw) for _ in range(2))
    codes, translation, start = MODEL.codes(PEOPLE), MODEL.modality("FLAIR").translation, torch.ones(2)
    hidden = MODEL.codes([{**person, "age": None} for person in PEOPLE])
    plain, without = (translation(noise, start, latents, known) for known in (codes, hidden))
    wanted = MODEL.decode(noise - (plain + 2 * (plain - without)), "FLAIR")
    assert torch.allclose(translated(MODEL, "FLAIR", latents, codes, noise, steps=1, guidance={"age": 3.0}), wanted, atol=1e-5)
    assert not torch.allclose(translated(MODEL, "FLAIR", latents, codes, noise, steps=1), wanted, atol=1e-3)
    rows = [Wanted(PEOPLE[0], 0, 0.0, "FLAIR")]
    assert not torch.allclose(images(MODEL, rows, 7, steps=3, guidance={"age": 3.0}), made(rows), atol=1e-3)


def test_a_modality_that_the_model_does_not_make_is_refused() -> None:
    with pytest.raises(UsageError, match="makes T1w, not FLAIR"):
        images(small_brain(), [Wanted(PEOPLE[0], 0, 0.0, "FLAIR")], 7, steps=1, guidance=1.0)


def test_where_everybody_has_one_visit_and_modality_nothing_is_asked_of_other_networks() -> None:
    plain = small_brain()
    wanted = [Wanted(person, number) for number, person in enumerate(PEOPLE)]
    assert torch.equal(images(plain, wanted, 7, steps=3, guidance=1.0), generate(plain, PEOPLE, 7, steps=3, guidance=1.0))
