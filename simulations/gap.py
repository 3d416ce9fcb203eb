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
from braing3n_core.errors import DataRefused, PlanRefused
from braing3n_core.flower_process import Say
from braing3n_core.generate import BATCH, BRIGHTEST
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import SHIPPED, load_prior, read_prior
from braing3n_core.training import drawn_once, prepare
from privacy.dp_sgd import Rows
from simulations.quality import Scores, reference_of, scores_of

_VIEWS = 4
_STAGE = Stage(
    name="generator", trainable="group:place", learns="mean", rounds=1, local_steps=1, sample_rate=1.0, views=_VIEWS, clip=1.0,
    learning_rate=1.0, share=1.0,
)  # fmt: skip
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
    if plan.start != "prior":
        raise PlanRefused('a gap is from the prior\'s people; take a plan with start = "prior"')
    public = load_prior(plan)
    model = _able(plan, public)
    reference = reference_of(plan, public, held_out)
    say(f"how far {len(training)} training patients lie from such people")
    gaps, codes = _gaps(plan, public, training)
    arms = {"the prior": scores_of(plan, public, public, reference)}
    say("moved in the public directions")
    give_population(model, gaps, codes)
    arms["population: the public directions"] = scores_of(plan, model, public, reference)
    say("moved in every direction")
    give_common(model, gaps, codes)
    arms["place: and a shift that all share"] = scores_of(plan, model, public, reference)
    say("spread as patients are")
    give_spread(plan, model, training)
    arms["spread: and spread as patients are"] = scores_of(plan, model, public, reference)
    say("the held-out patients themselves, encoded and decoded")
    with torch.no_grad():
        rebuilt = torch.cat([public.encode(part) for part in reference.volumes.split(BATCH)])
    arms["they themselves through the tokenizer"] = scores_of(plan, public, public, reference, made=_volumes(public, rebuilt))
    return Gap(_distances(public, gaps), len(reference.volumes), reference.ageing, arms)


def _able(plan: TrainingPlan, public: Brain) -> Brain:
    """The prior, able to learn all that is given here, whatever the plan's own stages are."""
    path = SHIPPED / f"{plan.preset}.safetensors"
    model = read_prior(path, plan.variables, dict.fromkeys((*plan.parts, "spread")))
    model.quantizer = public.quantizer
    return model


@torch.no_grad()
def _gaps(plan: TrainingPlan, model: Brain, patients: Sequence[Patient]) -> tuple[Tensor, Tensor]:
    """(B, N, C) how far each patient lies from the prior's people of such conditions, some hidden, and (B, M) their codes."""
    gaps, codes = zip(*_rows(plan, model, _STAGE, patients), strict=True)
    return torch.cat(gaps), torch.cat(codes)


def _rows(plan: TrainingPlan, model: Brain, stage: Stage, patients: Sequence[Patient]) -> Iterator[Rows]:
    """What the stage would keep of each patient."""
    draws = torch.Generator().manual_seed(plan.seed)
    for one in patients:
        yield drawn_once(prepare(stage.name, model, one.scans), stage, model, draws).tensors


@torch.no_grad()
def give_population(model: Brain, gaps: Tensor, codes: Tensor) -> None:
    """The population's weights by ridge regression."""
    population = model.generator.population
    features, along = population.features(codes) @ population.whiten, population.along(gaps)
    normal = features.T @ features + _RIDGE * torch.eye(features.shape[1])
    population.respond.weight.copy_(torch.linalg.solve(normal, features.T @ along).T)


@torch.no_grad()
def give_common(model: Brain, gaps: Tensor, codes: Tensor) -> None:
    """What is left of the mean, in any direction."""
    left = (gaps - model.generator.population(codes)).mean(0)
    model.generator.common.code.copy_(left / math.sqrt(left.numel()))


@torch.no_grad()
def give_spread(plan: TrainingPlan, model: Brain, patients: Sequence[Patient]) -> None:
    """Where training would end, from the mean that the model has by now."""
    stage = _STAGE.model_copy(update={"name": "spread", "trainable": "all", "learns": "flow"})
    model.spreading.fit(torch.cat([rows for (rows,) in _rows(plan, model, stage, patients)]))


@torch.no_grad()
def _volumes(model: Brain, latents: Tensor) -> Tensor:
    """(n, N, C) -> (n, 1, D, H, W), as `generate` makes them."""
    return torch.cat([model.decode(part) for part in latents.split(BATCH)]).clamp(0, BRIGHTEST)


def _distances(model: Brain, gaps: Tensor) -> Distances:
    each = gaps.unflatten(0, (-1, _VIEWS)).mean(1).flatten(1)                                  # (n, NC)
    mean = each.mean(0)
    inside = model.generator.population.along(mean[None]).square().sum() * mean.numel()
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
