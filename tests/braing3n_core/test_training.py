"""Rows draw what they should and nothing else; cached latents are means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from braing3n_core.data.cohort import Scan
from braing3n_core.data.phantom import phantoms
from braing3n_core.models.generator import MISSING
from braing3n_core.models.trainable import select_trainable
from braing3n_core.plan import Hospital, Learns, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.training import (
    DROP_ALL,
    DROP_ONE,
    LATENT_NOISE,
    PURE_NOISE,
    Prepared,
    draw_rows,
    drawn_once,
    make_rows,
    pairs_of,
    prepare,
    row_loss,
    shown_of,
)
from privacy.dp_sgd import clipped_sum
from tests.small import SMALL, small_brain, stage

MODEL = small_brain()
RECIPE = Path(__file__).parents[2] / "simulations" / "recipes" / "demo.toml"


def scans(count: int) -> list[Scan]:
    draw = torch.Generator().manual_seed(4)
    ages = [{"age": 20.0 + i, "sex": "F"} for i in range(count)]
    return [Scan(torch.rand(1, *SMALL.shape, generator=draw), conditions) for conditions in ages]


def test_cached_latents_are_means_and_never_noisy() -> None:
    one, two = (prepare("generator", MODEL, scans(2)).tensors for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one[0], MODEL.encode(torch.stack([s.volume for s in scans(2)])))


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_rows_follow_from_the_generator_alone_and_every_row_has_a_loss(name: str) -> None:
    chosen = stage(name, views=5)
    prepared = prepare(chosen.name, MODEL, scans(2))
    one, two = (make_rows(prepared, chosen, MODEL, torch.Generator().manual_seed(9)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    losses = row_loss(chosen.name)(MODEL, one)
    assert losses.shape == (5,)
    assert torch.isfinite(losses).all()
    assert len(set(losses.tolist())) == 5, "every row has draws of its own"


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_a_rows_loss_does_not_depend_on_its_neighbours(name: str) -> None:
    chosen = stage(name, views=3)
    rows = make_rows(prepare(chosen.name, MODEL, scans(3)), chosen, MODEL, torch.Generator().manual_seed(1))
    together = row_loss(chosen.name)(MODEL, rows)
    alone = torch.cat([row_loss(chosen.name)(MODEL, tuple(r[i : i + 1] for r in rows)) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-4)


def test_a_gradient_of_the_mean_is_the_patient_s_and_not_the_noise_s() -> None:
    """Behind the shipped prior, two draws for one patient agree; over the whole flow they hardly do."""
    prior = load_prior(TrainingPlan.load(RECIPE))
    (volume, truth), = phantoms(prior.preset, 1, 5, Hospital(name="x", ageing=0.7))
    person = prepare("generator", prior, [Scan(volume, {"age": truth.age, "sex": truth.sex})])
    weight = prior.generator.population.respond.weight.requires_grad_(True)

    def gradient(learns: Learns, seed: int) -> torch.Tensor:
        rows = draw_rows("generator", person.tensors, prior, 1, torch.Generator().manual_seed(seed), learns)
        shown = (*rows[:3], person.tensors[1])               # the same conditions in every draw
        return torch.autograd.grad(row_loss("generator")(prior, shown).sum(), weight)[0].flatten()

    def agreement(learns: Learns) -> float:
        drawn = torch.stack([gradient(learns, seed) for seed in range(6)])
        return float(torch.nn.functional.cosine_similarity(drawn[:3], drawn[3:]).mean())

    assert agreement("mean") > 0.9
    assert agreement("flow") < 0.8


@pytest.mark.parametrize(
    ("name", "group"), [("generator", "group:population"), ("generator", "group:place"), ("trajectory", "group:pace")]
)
def test_a_mean_that_is_asked_for_once_has_the_gradient_of_the_flow_at_pure_noise(name: str, group: str) -> None:
    model = small_brain("trajectory")
    for population in (model.generator.population, model.years.pace):
        population.basis.normal_(generator=torch.Generator().manual_seed(1))
    chosen = stage(name, group, learns="mean", views=6)
    select_trainable(model, chosen, 0)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for weight in weights:
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(2))
    found = prepare(chosen.name, model, scans(3))
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    flow = draw_rows(chosen.name, found.tensors, model, 6, draws[0], "mean")
    once = make_rows(drawn_once(found, chosen, model, draws[1]), chosen, model, draws[1])
    of_flow, of_once = (
        torch.autograd.grad(row_loss(chosen.name, learns)(model, rows).sum(), weights)
        for learns, rows in (("flow", flow), ("mean", once))  # type: ignore[misc]  # literals
    )
    for one, other in zip(of_flow, of_once, strict=True):
        assert other.abs().max() > 0
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_conditions_are_hidden_as_often_as_declared() -> None:
    latents, codes = torch.zeros(1, MODEL.tokens, SMALL.latent_width), torch.full((1, 6), 0.5)
    dropped = draw_rows("generator", (latents, codes), MODEL, 4000, torch.Generator().manual_seed(0))[3] == MISSING
    expected = DROP_ALL + (1 - DROP_ALL) * DROP_ONE
    assert abs(float(dropped.float().mean()) - expected) < 0.02
    assert abs(float(dropped.all(1).float().mean()) - DROP_ALL) < 0.02


def test_decoder_noise_stays_below_its_declared_deviation() -> None:
    data = (torch.zeros(1, MODEL.tokens, SMALL.encoder_width), torch.zeros(1, 1, *SMALL.shape))
    noise = draw_rows("decoder", data, MODEL, 400, torch.Generator().manual_seed(0))[2]
    deviations = noise.flatten(1).std(1)
    assert deviations.max() < 1.3 * LATENT_NOISE
    assert deviations.min() < 0.1 * LATENT_NOISE


LONGER = small_brain("trajectory", "FLAIR")


def test_pairs_are_two_scans_of_one_kind_with_years_between() -> None:
    latents = torch.randn(4, LONGER.tokens, SMALL.latent_width)
    rows = [
        {"age": 50.0, "modality": "T1w"}, {"age": 53.0, "modality": "T1w"}, {"age": 75.0, "modality": "T1w"}, {"age": None}
    ]  # fmt: skip
    first, change, codes, years, there = pairs_of(LONGER, latents, rows)
    assert years.tolist() == [3.0], "22 and 25 years are longer than any trajectory knows"
    assert torch.equal(first, latents[:1])
    assert torch.allclose(change, (latents[1:2] - latents[:1]) / LONGER.years.scale)
    assert torch.equal(codes, LONGER.codes(rows[:1]))
    assert there.tolist() == [1.0]
    same_day = pairs_of(LONGER, latents[:2], [{"age": 50.0}, {"age": 50.0}])
    assert same_day[4].tolist() == [0.0]


def test_a_person_without_a_second_visit_has_no_gradient_at_all() -> None:
    chosen = stage("trajectory")
    select_trainable(LONGER, chosen, seed=1)
    people = [pairs_of(LONGER, torch.randn(1, LONGER.tokens, SMALL.latent_width), [{"age": 50.0}])]
    people.append(pairs_of(LONGER, torch.randn(2, LONGER.tokens, SMALL.latent_width), [{"age": 50.0}, {"age": 55.0}]))
    rows = [make_rows(Prepared(one), chosen, LONGER, torch.Generator().manual_seed(2)) for one in people]
    found = clipped_sum(LONGER, rows, row_loss("trajectory"), 1.0, "fast")
    assert float(found.norms[0]) == 0
    assert float(found.norms[1]) > 0
    LONGER.requires_grad_(False)


def test_a_trajectory_is_asked_at_pure_noise_a_quarter_of_the_time_and_always_for_a_mean() -> None:
    pair = pairs_of(LONGER, torch.randn(2, LONGER.tokens, SMALL.latent_width), [{"age": 50.0}, {"age": 55.0}])
    times = draw_rows("trajectory", pair, LONGER, 4000, torch.Generator().manual_seed(0))[3]
    assert abs(float((times == 1).float().mean()) - PURE_NOISE) < 0.03
    assert bool((draw_rows("trajectory", pair, LONGER, 100, torch.Generator().manual_seed(0), "mean")[3] == 1).all())


def test_a_person_without_another_modality_has_no_gradient_and_each_scan_trains_its_own() -> None:
    chosen = stage("contrast")
    select_trainable(LONGER, chosen, seed=1)
    flair = Scan(torch.rand(1, *SMALL.shape), {}, "FLAIR")
    people = [shown_of(LONGER, []), shown_of(LONGER, [flair]), shown_of(LONGER, [flair, flair])]
    rows = [make_rows(Prepared(one), chosen, LONGER, torch.Generator().manual_seed(2)) for one in people]
    found = {engine: clipped_sum(LONGER, rows, row_loss("contrast"), 1.0, engine) for engine in ("fast", "loop")}
    assert float(found["fast"].norms[0]) == 0
    assert float(found["fast"].norms[1:].min()) > 0
    assert torch.allclose(found["fast"].norms, found["loop"].norms, rtol=1e-5)
    trained = {name.split(".")[2] for name, weight in LONGER.named_parameters() if weight.requires_grad}
    assert trained == {"decoder"}, "latents and their translation stay public"
    LONGER.requires_grad_(False)


def test_other_modalities_are_seen_as_the_prior_sees_them() -> None:
    flair = Scan(torch.rand(1, *SMALL.shape), {}, "FLAIR")
    latents, volumes, which, there = shown_of(LONGER, [flair])
    assert torch.equal(volumes[0], flair.volume)
    assert (which.tolist(), there.tolist()) == ([0.0], [1.0])
    assert torch.allclose(latents, LONGER.encode(flair.volume[None], "FLAIR"))
    assert prepare("contrast", LONGER, (), [flair]).tensors[0].equal(latents)
