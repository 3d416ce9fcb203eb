"""Every image of synthetic people: one anatomy at each visit and in each modality, each image a function of its row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braing3n_core.flow import heun, led
from braing3n_core.forecast import drawn_change
from braing3n_core.generate import BATCH, Guidance, generate, guided_field, noise_of
from braing3n_core.lesions import SHOWN_ON, Lead, asked
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.plan import T1W

_EVENTS = 2**40                                              # added to a cohort's seed for what happens to its people
_LOOKS = 2**41                                               # and for what else another modality shows of them


@dataclass(frozen=True)
class Wanted:
    """One image that is asked for."""

    conditions: Mapping[str, Condition]                      # of the person at the first visit
    number: int                                              # of the person among those of the seed
    years: float = 0.0                                       # since the first visit
    modality: str = T1W


def images(
    model: Brain,
    wanted: Sequence[Wanted],
    seed: int,
    *,
    steps: int,
    guidance: Guidance,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(n, 1, D, H, W): the images, in the order of the rows.

    A person, what happens to that person and what other modalities show depend on (seed, number) alone: all images of a
    person are of one anatomy and one course of events, and a T1w of the first visit is what `generate` makes. A FLAIR is
    led to the lesions that are asked for, the same at every visit.
    Raises UsageError for years or a modality that the model does not know.
    """
    conditions, people = [one.conditions for one in wanted], [one.number for one in wanted]
    noise, events, looks = (
        torch.cat([noise_of(model, start, 1, person) for person in people]) for start in (seed, seed + _EVENTS, seed + _LOOKS)
    )
    codes, gaps = model.codes(conditions), torch.tensor([one.years for one in wanted], dtype=torch.float32)
    modalities, loads = [one.modality for one in wanted], asked(model, conditions)

    def aged(latents: Tensor, part: slice) -> Tensor:
        late = gaps[part] > 0
        if bool(late.any()):
            first, drawn = latents[late], events[part][late]
            change = drawn_change(model, first, codes[part][late], gaps[part][late], drawn, steps=steps)
            latents = latents.index_put((late,), first + change)
        return latents

    @torch.no_grad()
    def decode(latents: Tensor, part: slice) -> Tensor:
        latents = aged(latents, part)
        volumes = model.decode(latents)
        for name in sorted(set(modalities[part]) - {T1W}):
            rows = torch.tensor([each == name for each in modalities[part]])
            person = latents[rows], codes[part][rows], looks[part][rows]
            lesions = loads[part][rows] if name == SHOWN_ON else None
            shown = translated(model, name, *person, steps=steps, guidance=guidance, lesions=lesions)
            volumes = volumes.index_put((rows,), shown)
        return volumes

    return generate(
        model, conditions, seed, steps=steps, guidance=guidance, batch=batch, noise=noise, decode=decode, progress=progress
    )


@torch.no_grad()
def translated(
    model: Brain,
    name: str,
    latents: Tensor,
    codes: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance: Guidance = 1.0,
    lesions: Tensor | None = None,
) -> Tensor:
    """(B, 1, D, H, W): the brains behind T1w `latents` (B, N, C), with `codes` (B, M), as modality `name` may show them.

    `lesions`: (B,) ml that a FLAIR is led to, NaN for who is left alone.
    """
    translation = model.modality(name).translation

    def network(z: Tensor, t: Tensor, known: Tensor) -> Tensor:
        velocity: Tensor = translation(z, t, latents, known)
        return velocity

    field = guided_field(network, model.variables, codes, guidance)
    if lesions is not None:
        field = led(field, Lead(model, lesions))
    return model.decode(heun(field, noise, steps), name)
