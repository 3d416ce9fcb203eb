"""How far hospitals' patients lie from the public prior's people, and how much nearer each kind of training could bring them.

Every arm is given what it could learn at best, from the training patients, in closed form and without privacy, and is scored on
held-out ones. So it says which weights are worth their noise before any budget is spent, and what no training of the generator
can mend, because the tokenizer already lost it. For a rehearsal, or a hospital's own eyes.
"""

# n patients, B rows, N tokens, C channels, R public directions, F features of the conditions

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from braing3n_core.console import for_programs
from braing3n_core.data.cohort import Patient
from braing3n_core.errors import DataRefused
from braing3n_core.flower_process import Say
from braing3n_core.generate import BATCH, BRIGHTEST
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.training import drawn_once, prepare
from simulations.quality import Reference, Scores, people_like, reference_of, scores_of

_VIEWS = 4
_RIDGE = 4.0                                                 # of features of variance 1: so many rows without any effect
_TOLD = {"distance": "KID", "frechet": "Fréchet", "coverage": "coverage", "organs": "tissues, d", "ageing": "ml a decade"}


@dataclass(frozen=True)
class Distances:
    """Norms over all latents of a person, which the prior's own scale gives a variance of 1 each."""

    patients: int
    mean: float                                              # of the mean patient from what the prior says of such people
    each: float                                              # of a patient from that mean, root mean square
    directions: float                                        # part of mean^2 inside the public directions


@dataclass(frozen=True)
class Gap:
    """What was found. `arms`: what a generator was given -> its scores, `held_out` patients' own ageing beside."""

    distances: Distances
    held_out: int
    ageing: float                                            # of the held-out patients' ventricles, ml a decade
    arms: Mapping[str, Scores]


def gap(plan: TrainingPlan, training: Sequence[Patient], held_out: Sequence[Patient], say: Say) -> Gap:
    """All arms. Each keeps what the one before it was given. Raises DataRefused for fewer than two patients of either kind."""
    if min(len(training), len(held_out)) < 2:
        raise DataRefused(f"{len(training)} patients train and {len(held_out)} are held out; at least two of each are needed")
    public, model = load_prior(plan), load_prior(plan)
    reference = reference_of(plan, public, held_out)
    say(f"how far {len(training)} training patients lie from such people")
    gaps, codes = _gaps(plan, public, training)
    arms = {"the prior": scores_of(plan, public, public, reference)}
    say("moved in the public directions")
    give_population(model, gaps, codes)
    arms["population: the public directions"] = scores_of(plan, model, public, reference)
    say("moved in every direction")
    give_common(model, gaps, codes)
    made: list[Tensor] = []

    def keeping(latents: Tensor, _: slice) -> Tensor:
        made.append(latents)
        return model.decode(latents)

    moved = people_like(plan, model, reference, keeping)
    arms["place: and a shift that all share"] = scores_of(plan, model, public, reference, made=moved)
    say("spread as patients are")
    spread = _volumes(model, _spread(model, torch.cat(made), reference, gaps, codes))
    arms["and as spread in those directions"] = scores_of(plan, model, public, reference, made=spread)
    say("the held-out patients themselves, encoded and decoded")
    with torch.no_grad():
        rebuilt = torch.cat([public.encode(part) for part in reference.volumes.split(BATCH)])
    arms["they themselves through the tokenizer"] = scores_of(plan, public, public, reference, made=_volumes(public, rebuilt))
    return Gap(_distances(public, gaps), len(reference.volumes), reference.ageing, arms)


@torch.no_grad()
def _gaps(plan: TrainingPlan, model: Brain, patients: Sequence[Patient]) -> tuple[Tensor, Tensor]:
    """(B, N, C) how far each patient lies from the prior's people of such conditions, some hidden, and (B, M) their codes."""
    stage = Stage(
        name="generator", trainable="group:place", learns="mean", rounds=1, local_steps=1, sample_rate=1.0, views=_VIEWS,
        clip=1.0, learning_rate=1.0, share=1.0,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(plan.seed)
    rows = [drawn_once(prepare("generator", model, one.scans), stage, model, draws).tensors for one in patients]
    gaps, codes = zip(*rows, strict=True)
    return torch.cat(gaps), torch.cat(codes)


@torch.no_grad()
def give_population(model: Brain, gaps: Tensor, codes: Tensor) -> None:
    """The population's weights by ridge regression."""
    population = model.generator.population
    features, along = population.features(codes) @ population.whiten, _along(model, gaps)
    normal = features.T @ features + _RIDGE * torch.eye(features.shape[1])
    population.respond.weight.copy_(torch.linalg.solve(normal, features.T @ along).T)


@torch.no_grad()
def give_common(model: Brain, gaps: Tensor, codes: Tensor) -> None:
    """What is left of the mean, in any direction."""
    left = (gaps - model.generator.population(codes)).mean(0)
    model.generator.common.code.copy_(left / math.sqrt(left.numel()))


@torch.no_grad()
def _spread(model: Brain, made: Tensor, reference: Reference, gaps: Tensor, codes: Tensor) -> Tensor:
    """(n, N, C) people, each one's distance from the conditional mean scaled, along each public direction, to patients'."""
    wanted = _along(model, gaps - model.generator.shift(codes)).std(0)                         # (R,)
    off = _along(model, made - torch.cat([_mean_person(model, part) for part in model.codes(reference.asked).split(32)]))
    return made + torch.einsum("br,rnc->bnc", off * (wanted / off.std(0) - 1), model.generator.population.basis)


def _mean_person(model: Brain, codes: Tensor) -> Tensor:
    """(B, M) codes -> (B, N, C): at pure noise the velocity is the noise minus the mean of everybody with these conditions."""
    noise = torch.zeros(len(codes), *model.centre.shape)
    velocity: Tensor = model.generator(noise, torch.ones(len(codes)), codes)
    return noise - velocity


def _along(model: Brain, latents: Tensor) -> Tensor:
    """(B, N, C) -> (B, R) coordinates in the public directions, each of mean square 1."""
    basis = model.generator.population.basis.flatten(1)
    coordinates: Tensor = latents.flatten(1) @ basis.T / basis.shape[1]
    return coordinates


@torch.no_grad()
def _volumes(model: Brain, latents: Tensor) -> Tensor:
    """(n, N, C) -> (n, 1, D, H, W), as `generate` makes them."""
    return torch.cat([model.decode(part) for part in latents.split(BATCH)]).clamp(0, BRIGHTEST)


def _distances(model: Brain, gaps: Tensor) -> Distances:
    each = gaps.unflatten(0, (-1, _VIEWS)).mean(1).flatten(1)                                  # (n, NC)
    mean = each.mean(0)
    inside = _along(model, mean[None].unflatten(1, model.centre.shape)).square().sum() * mean.numel()
    apart = (each - mean).square().sum(1).mean().sqrt()
    return Distances(len(each), float(mean.norm()), float(apart), float(inside / mean.square().sum()))


def told(found: Gap) -> Iterator[str]:
    """The table for a person."""
    far = found.distances
    yield (
        f"{far.patients} training patients: their mean lies {far.mean:.0f} from the prior's people of such conditions, "
        f"{far.directions:.0%} of it (squared) in the public directions; a patient lies {far.each:.0f} from that mean"
    )
    yield f"{'given at best, without privacy':<42}" + "".join(f"{head:>13}" for head in _TOLD.values())
    for arm, scores in found.arms.items():
        yield f"{arm:<42}" + "".join(f"{getattr(scores, name):>13.3g}" for name in _TOLD)
    yield f"scored on {found.held_out} held-out patients, whose ventricles grow by {found.ageing:.3g} ml a decade"


def as_json(found: Gap) -> str:
    """The same for programs."""
    return for_programs(asdict(found))
