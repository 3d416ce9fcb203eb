"""The `[privacy]` table of a plan: which mechanism, for which budget, and what a secure sum rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from braing3n_core.frozen import Frozen

Mechanism = Literal["local", "secure-sum", "non-private"]


class SecureSum(Frozen):
    """What the sum of several sites rests on (privacy/secure_sum.py), and what is left of the guarantee when that fails.

    `fallback_epsilon` is the most that a patient spends, over everything in the plan, against the server and ALL other sites
    working together: each site's own share of the noise, and nothing else, must be worth that much.

    A sum that could not be opened is paid for and lost. `spare` rounds of each stage are calibrated and counted with the
    others, so that as many may be taken again; those that nobody needed are not spent.
    """

    fallback_epsilon: PositiveFloat
    dropped: NonNegativeInt                # sites that may be missing when a round closes
    colluding: NonNegativeInt              # other sites that may work with the server, or for themselves
    grid: Annotated[int, Field(ge=2**8, le=2**20)] = 2**14    # whole numbers in one clipping bound
    spare: NonNegativeInt = 0              # rounds of each stage, beyond those planned

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plan without spare rounds keeps the digest it had."""
        return {key: value for key, value in handler(self).items() if key != "spare" or value}


class Privacy(Frozen):
    """The agreed patient-level budget: add or remove one patient with all scans.

    `local`: every site is (epsilon, delta)-DP on its own, against everyone. `secure-sum`: the sum over sites is, against the
    server and some sites; on its own each is fallback_epsilon-DP. `non-private`: no guarantee at all, charged as infinity;
    refused outside rehearsals. `vote_epsilon` of the budget is kept for each round of the sites' vote on copies among the
    candidates of a release; 0: no vote, and the certificate says so.

    `fit_share` of what trains, in squared privacy loss, is taken off first and pays for one number on either end of each
    stage: how well the model fits a site's patients (braing3n_core/fit.py). The stages' shares divide what is left. 0: nothing
    is told, and the plan keeps the digest it had. For `local` alone: a number of one site is what a secure sum hides.
    """

    mechanism: Mechanism
    epsilon: PositiveFloat
    delta: Annotated[float, Field(gt=0, lt=1)]
    vote_epsilon: Annotated[float, Field(ge=0)] = 0.0
    vote_rounds: Annotated[int, Field(ge=1, le=2)] = 1       # says nothing without a vote
    fit_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    secure_sum: SecureSum | None = None

    @model_validator(mode="after")
    def _something_is_left_to_train_with(self) -> Self:
        if not self.training > 0:
            raise ValueError(f"the vote takes all of epsilon={self.epsilon:g}; lower vote_epsilon or raise epsilon")
        return self

    @model_validator(mode="after")
    def _a_secure_sum_says_what_it_rests_on(self) -> Self:
        if (self.mechanism == "secure-sum") != (self.secure_sum is not None):
            raise ValueError('mechanism "secure-sum" and a table [privacy.secure_sum] go together; write both or neither')
        if self.secure_sum and not self.secure_sum.fallback_epsilon >= self.epsilon:
            raise ValueError(
                f"fallback_epsilon={self.secure_sum.fallback_epsilon:g} is below epsilon={self.epsilon:g}, but one share of "
                'noise is never worth more than all of it; raise fallback_epsilon, or choose mechanism "local"'
            )
        if self.secure_sum and self.fit_share:
            raise ValueError(
                "fit_share tells a number of each site alone, which a secure sum promises to hide; leave fit_share out, or "
                'choose mechanism "local"'
            )
        return self

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plan without secure sums, or that tells no fit, keeps the digest it had."""
        said = {key: value for key, value in handler(self).items() if value is not None}
        return {key: value for key, value in said.items() if key != "fit_share" or value}

    @property
    def tells_fit(self) -> bool:
        """Whether sites are asked how well the model fits their patients: never without a guarantee."""
        return self.fit_share > 0 and self.mechanism == "local"

    @property
    def training(self) -> float:
        """Epsilon that the stages may spend, census and fit with them: the budget without what the vote is to cost."""
        return self.epsilon - self.vote_epsilon * self.vote_rounds

    @property
    def spare(self) -> int:
        """Rounds of each stage that may be paid for beyond those planned, in place of failed secure sums."""
        return self.secure_sum.spare if self.secure_sum else 0

    @property
    def private(self) -> bool:
        """Whether anything is promised."""
        return self.mechanism != "non-private"

    def refuse_what_cannot_be_summed(self, sites: int, quorum: int, steps: Mapping[str, int], aggregated: bool) -> None:
        """Raise ValueError unless a federation of `sites` sites can take secure sums; `steps`: local steps by stage."""
        if self.secure_sum is None:
            return
        dropped, colluding = self.secure_sum.dropped, self.secure_sum.colluding
        if not sites > max(2 * dropped + colluding, 1 + colluding):
            raise ValueError(
                f"{sites} sites cannot hide one when {dropped} may drop out and {colluding} collude; a secure sum needs more "
                "than 2 x dropped + colluding sites, and two honest ones"
            )
        if quorum != sites - dropped:
            raise ValueError(f"quorum={quorum}, but a secure sum over {sites} sites opens with {sites - dropped}; write that")
        for stage, count in steps.items():
            if count != 1:
                raise ValueError(f"stage {stage}: a secure sum is one global step; write local_steps = 1, {count} x the rounds")
        if aggregated:
            raise ValueError("[federation.aggregate] needs each site's update, which a secure sum hides; leave it out")
