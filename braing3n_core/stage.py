"""One stage of a plan: what is trained, and how each local DP-SGD step of it is taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from braing3n_core.frozen import Frozen

Fraction = Annotated[float, Field(gt=0, le=1)]
StageName = Literal["encoder", "decoder", "generator", "spread", "trajectory", "contrast"]
Learns = Literal["flow", "mean"]


class Stage(Frozen):
    """One federated stage: what is trained and how each local DP-SGD step is taken.

    `trainable` is `all`, `lora:RANK` or `group:NAME` (braing3n_core.models.trainable lists the groups).
    `share` is the stage's part of the total privacy budget, in squared privacy loss (mu^2).
    """

    name: StageName
    trainable: Annotated[str, Field(pattern=r"^(all|lora:[1-9][0-9]*|group:[a-z]+)$")]
    rounds: PositiveInt
    local_steps: PositiveInt
    sample_rate: Fraction                  # each patient joins each step with this probability
    views: PositiveInt                     # draws per patient and step, averaged before clipping
    clip: PositiveFloat                    # L2 bound on one patient's gradient
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9       # from step to step within one round, at each site
    share: Fraction
    proximal: Annotated[float, Field(ge=0)] = 0.0             # FedProx's mu: pulls each local step towards the round's start
    learns: Learns = "flow"                # mean: where the generator's people lie, or how fast people change, alone

    @model_validator(mode="after")
    def _a_mean_is_learned_where_there_is_one(self) -> Self:
        means = (("generator", "group:population"), ("generator", "group:place"), ("trajectory", "group:pace"))
        if self.learns == "mean" and (self.name, self.trainable) not in means:
            raise ValueError(
                "learns='mean' is for the generator's group:population and group:place and the trajectory's group:pace; "
                "everything else needs the whole flow"
            )
        return self

    @model_validator(mode="after")
    def _a_spread_is_a_few_numbers(self) -> Self:
        if self.name == "spread" and self.trainable != "all":
            raise ValueError(f'stage spread trains all of its few numbers; write trainable = "all", not {self.trainable!r}')
        return self

    @property
    def once(self) -> bool:
        """Whether a patient's rows are drawn once for all steps and rounds."""
        return self.learns == "mean" or self.name == "spread"

    @model_validator(mode="after")
    def _the_pull_does_not_overshoot(self) -> Self:
        if self.proximal and not self.local_steps > 1:
            raise ValueError("proximal pulls back what local steps did; with local_steps=1 it does nothing, so leave it out")
        if not self.proximal * self.learning_rate < 1:
            raise ValueError(f"proximal={self.proximal:g} must be below 1/learning_rate={1 / self.learning_rate:g}")
        return self

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What nobody asked for is not written, so a plan without it keeps the digest it had."""
        unset = {"proximal": 0.0, "learns": "flow"}
        return {key: value for key, value in handler(self).items() if key not in unset or value != unset[key]}
