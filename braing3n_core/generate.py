"""From conditions to volumes: noise, a few steps, decode. Deterministic: the same seed gives the same volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from braing3n_core.errors import UsageError
from braing3n_core.flow import Sampler, Velocity, guided, heun, middle
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.population import MISSING
from braing3n_core.models.presets import Preset
from braing3n_core.plan import Categorical, Continuous

Guidance = float | Mapping[str, float]                       # one weight for all conditions, or one per variable
Conditioned = Callable[[Tensor, Tensor, Tensor], Tensor]     # (B, N, C) latents, (B,) times, (B, M) codes -> velocity
Decode = Callable[[Tensor, slice], Tensor]                   # latents of some rows, and which rows -> volumes
BRIGHTEST = 1.3                                              # of the scaled intensities that training saw
BATCH = 8                                                    # volumes at once, if they are small enough
_WORKING_BYTES = 2**30                                       # of a batch in the decoder, which needs most
_HELD = 40                                                   # floats per voxel that decoding one volume holds at its peak


def batch_for(preset: Preset) -> int:
    """Volumes to make at once, so that a batch works in about a gigabyte.

    A function of the preset alone: the last digits of a batch depend on its size, so the machine's memory must not decide it.
    """
    return max(1, min(BATCH, _WORKING_BYTES // (4 * _HELD * math.prod(preset.shape))))


def noise_of(model: Brain, seed: int, count: int, first: int = 0) -> Tensor:
    """(count, N, C) starting noise of images `first` and on.

    Image i's depends on (seed, i) alone, so a longer cohort begins with the shorter one.
    """
    rows = [torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63) for i in range(first, first + count)]
    return torch.stack([torch.randn(model.centre.shape, generator=row) for row in rows])


@torch.no_grad()
def generate(
    model: Brain,
    conditions: Sequence[Mapping[str, Condition]],
    seed: int,
    *,
    steps: int,
    guidance: Guidance,
    batch: int = BATCH,
    noise: Tensor | None = None,
    sampler: Sampler = heun,
    decode: Decode | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(n, 1, D, H, W) volumes, one per row of `conditions`, in [0, 1.3] and zero outside the brain.

    `noise` (n, N, C) in place of the seed's own lets a sweep share one person. `guidance` 1 is the plain conditional field;
    a mapping weighs each variable on its own, and those it leaves out have weight 1. `decode` stands in for the model's own
    decoding. Raises UsageError for a variable that the model does not have.
    """
    _refuse_unknown(model, guidance)
    codes = model.codes(conditions)
    wanted = model.wanted_volumes(conditions)
    start = noise_of(model, seed, len(conditions)) if noise is None else noise
    volumes = []
    for first in range(0, len(codes), batch):
        part = slice(first, first + batch)
        field = guided_field(model.generator, model.variables, codes[part], guidance)
        latents = _people(model, field, start[part], sampler, steps)
        if model.steering is not None:
            latents = model.steering(latents, wanted[part])
        volumes.append((decode(latents, part) if decode else model.decode(latents)).clamp(0, BRIGHTEST))
        if progress:
            progress(min(first + batch, len(codes)), len(codes))
    return torch.cat(volumes)


def counterfactuals(
    model: Brain,
    person: Mapping[str, Condition],
    name: str,
    values: Sequence[Condition],
    seed: int,
    *,
    steps: int,
    guidance: Guidance,
) -> Tensor:
    """(n, 1, D, H, W): one synthetic person with condition `name` set to each of `values`; noise and all else are the same."""
    _refuse_unknown(model, {name: 1.0})
    noise = noise_of(model, seed, 1).expand(len(values), -1, -1)
    rows = [{**person, name: value} for value in values]
    return generate(model, rows, seed, steps=steps, guidance=guidance, noise=noise)


def _people(model: Brain, field: Velocity, start: Tensor, sampler: Sampler, steps: int) -> Tensor:
    """(B, N, C): where the flow ends, as far apart as the model says people are."""
    people = sampler(field, start, steps)
    if model.spread is None:
        return people
    return model.spread(model.generator.population, people, middle(field, start))  # type: ignore[no-any-return]  # a module's call


def _refuse_unknown(model: Brain, guidance: Guidance) -> None:
    known = [variable.name for variable in model.variables]
    for name in guidance if isinstance(guidance, Mapping) else ():
        if name not in known:
            raise UsageError(f"the generator has no variable {name!r}; it has {', '.join(known)}")


def guided_field(
    network: Conditioned, variables: Sequence[Continuous | Categorical], codes: Tensor, guidance: Guidance
) -> Velocity:
    """The guided velocity; each distinct set of hidden conditions costs one more evaluation of the network."""
    if isinstance(guidance, Mapping):
        weights = {column: guidance.get(v.name, 1.0) for column, v in enumerate(variables)}
        columns = [column for column, weight in weights.items() if weight != 1]
        hidden = [codes.clone().index_fill_(1, torch.tensor([column]), MISSING) for column in columns]
        strengths = [weights[column] for column in columns]
    else:
        hidden = [] if guidance == 1 else [torch.full_like(codes, MISSING)]
        strengths = [guidance] * len(hidden)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return guided(network(z, t, codes), [network(z, t, each) for each in hidden], strengths)

    return velocity
