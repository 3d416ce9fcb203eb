"""What one hospital allows, whatever a consortium proposes: the `[policy]` table of its site.toml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from braing3n_core.plan import Frozen, StageName, TrainingPlan

Mechanism = Literal["local", "secure-sum"]                   # those with a guarantee; a rehearsal never reaches a hospital


class Policy(Frozen):
    """The hospital's own bounds. A plan that crosses one of them is neither approved nor run.

    `epsilon` is the most that one patient may ever spend, over all plans together: the ledger holds it, not only the review.
    Against the server and all other hospitals together, which matters to secure sums alone, the most is `fallback_epsilon`.
    """

    epsilon: PositiveFloat
    fallback_epsilon: PositiveFloat | None = None            # as `epsilon`, if nothing else is said
    largest_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1)] = ("local",)
    stages: Annotated[tuple[StageName, ...], Field(min_length=1)] = ("encoder", "decoder", "generator", "spread")
    smallest_cohort: PositiveInt = 20                        # patients this site must declare to take part
    census: bool = False                                     # whether noisy counts of patients by age and so on may be told
    fit: bool = False                                        # whether it may be told, with noise, how well a model fits them

    @property
    def fallback(self) -> float:
        """The most against the server and all other hospitals together."""
        return self.epsilon if self.fallback_epsilon is None else self.fallback_epsilon

    def objections(self, plan: TrainingPlan, site: str) -> tuple[str, ...]:
        """Every way in which `plan` crosses this policy at `site`, in words; empty if it is allowed.

        Raises PlanRefused if the plan does not name the site at all.
        """
        return tuple(self._objections(plan, plan.site(site).patients))

    def _objections(self, plan: TrainingPlan, declared: int) -> Iterator[str]:
        if plan.rehearsal is not None:
            yield "it is a rehearsal with phantoms and may not touch patients"
        if plan.privacy.mechanism not in self.mechanisms:
            yield f'mechanism "{plan.privacy.mechanism}" is not one of {", ".join(self.mechanisms)}'
        if not plan.privacy.epsilon <= self.epsilon:
            yield f"it may spend epsilon {plan.privacy.epsilon:g}, more than the {self.epsilon:g} allowed here for ever"
        if plan.privacy.secure_sum and not plan.privacy.secure_sum.fallback_epsilon <= self.fallback:
            yield (
                f"against the server and all other hospitals together it may spend epsilon "
                f"{plan.privacy.secure_sum.fallback_epsilon:g}, more than the {self.fallback:g} allowed here for ever"
            )
        if not plan.privacy.delta <= self.largest_delta:
            yield f"its delta {plan.privacy.delta:g} is larger than the {self.largest_delta:g} allowed here"
        for stage in plan.stages:
            if stage.name not in self.stages:
                yield f"stage {stage.name} is not one of {', '.join(self.stages)}"
        if plan.census and not self.census:
            yield "it takes a census of patients, which is not allowed here (census = true in [policy] would allow it)"
        if plan.privacy.fit_share and not self.fit:
            yield "it asks how well the model fits patients, which is not allowed here (fit = true in [policy] would allow it)"
        if not declared >= self.smallest_cohort:
            yield f"it declares {declared} patients of this site, fewer than the {self.smallest_cohort} allowed here"
