"""Which synthetic people a plan asks for, and what it counts of the real ones to know whom to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from braing3n_core.frozen import Frozen
from braing3n_core.models.presets import LONGEST_YEARS

Shown = Literal["T1w", "FLAIR"]
T1W: Final = "T1w"                                           # what the generator makes; other modalities are made from it


class Census(Frozen):
    """Each site's noised counts of the conditioning variables, told once: which ages and diagnoses there are.

    `share` is its part of the budget, as a stage's. A continuous variable's range is cut into `bins` equal parts; each variable
    has one more bin for what is not known. No variables: all of the plan's. Few of them, and few bins, are told more clearly.
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    bins: Annotated[int, Field(ge=2, le=50)] = 8
    variables: tuple[str, ...] = ()


class Cell(Frozen):
    """So many synthetic people with these conditions.

    A continuous condition is a (low, high) range drawn uniformly; a categorical one is a tuple of levels drawn
    uniformly; one that is left out is not conditioned on. Conditions are those of the first visit.
    """

    count: PositiveInt
    visits: Annotated[int, Field(ge=1, le=20)] = 1           # of each person
    years: PositiveFloat = 1.0                               # between two visits
    modalities: Annotated[tuple[Shown, ...], Field(min_length=1)] = (T1W,)  # of each visit
    conditions: dict[str, tuple[float, float] | tuple[str, ...]]

    @model_validator(mode="after")
    def _the_last_visit_can_be_forecast(self) -> Self:
        if self.visits > 1 and not (self.visits - 1) * self.years <= LONGEST_YEARS:
            raise ValueError(f"{self.visits} visits {self.years:g} years apart go beyond the {LONGEST_YEARS:g} years that "
                             "the trajectory knows; ask for fewer, or closer ones")  # fmt: skip
        if self.visits == 1 and self.years != 1:
            raise ValueError("years are between visits, and there is one; leave years out, or ask for more visits")
        return self

    @model_validator(mode="after")
    def _every_person_has_a_t1w(self) -> Self:
        if self.modalities[0] != T1W or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities are {', '.join(self.modalities)}; begin with {T1W}, from which the others are made, "
                             "and name each once")  # fmt: skip
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without visits or modalities where there is one, so that plans written before them keep their digest."""
        written: dict[str, Any] = whole(self)
        unset = [*(("visits", "years") if self.visits == 1 else ()), *(("modalities",) if self.modalities == (T1W,) else ())]
        return {name: value for name, value in written.items() if name not in unset}


class Release(Frozen):
    """The cohort that is asked for. Drawn from this table, never from a participants table.

    `follow = "census"`: conditions that a cell leaves out are drawn as the census found them at the sites, each variable on
    its own; else they are left free.
    """

    seed: int
    follow: Literal["cells", "census"] = "cells"
    steps: PositiveInt = 12                # Heun steps of the sampler
    guidance: Annotated[float, Field(ge=0)] = 1.0             # of all conditions together
    guidance_of: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)        # or of each variable alone
    exact: bool = False                    # people are brought to measured volumes that are asked for (docs/adr/0016)
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]

    @property
    def weights(self) -> float | dict[str, float]:
        """Guidance as the sampler takes it."""
        return self.guidance_of or self.guidance

    @model_validator(mode="after")
    def _one_kind_of_guidance(self) -> Self:
        if self.guidance_of and self.guidance != 1:
            raise ValueError("guidance and guidance_of are both set; weigh all conditions together, or each alone")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what nobody asked for, so that plans written before it keep their digest."""
        written: dict[str, Any] = whole(self)
        unset = {"guidance_of": {}, "follow": "cells", "exact": False}
        return {name: value for name, value in written.items() if not (name in unset and value == unset[name])}


def refuse_what_cannot_be_shown(modalities: tuple[str, ...], start: str, trained: Mapping[str, str]) -> None:
    """Raise ValueError unless the other modalities can be made from the T1w; `trained` is stage -> what it trains."""
    if modalities == (T1W,):
        if "contrast" in trained:
            raise ValueError("stage contrast learns how other modalities than T1w look, and no cell has one; "
                             'write modalities = ["T1w", "FLAIR"] in a cell, or leave the stage out')  # fmt: skip
        return
    other = modalities[1]
    if start != "prior":
        raise ValueError(f'{other} needs the weights beside the prior; write start = "prior", or ask for T1w')
    if moved := moved_latents(trained):
        raise ValueError(
            f"stage {moved} moves the latents of T1w, from which {other} is made; train a group of the decoder, or ask for T1w"
        )


def moved_latents(trained: Mapping[str, str]) -> str:
    """The stage that makes other latents of a scan than the prior's, in words; "" if there is none. `trained` as above."""
    decoder = trained.get("decoder", "group:")                                                 # its groups leave the projection
    return "encoder" if "encoder" in trained else "" if decoder.startswith("group:") else f"decoder ({decoder})"
