"""One recipe under another mechanism, so that the two can be compared: the same steps, rates, clips and budget."""

from __future__ import annotations

from braing3n_core.budget import Mechanism, SecureSum
from braing3n_core.charges import with_fallback
from braing3n_core.errors import PlanRefused
from braing3n_core.law import colluders
from braing3n_core.plan import Optimizer, Site, Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values


def with_mechanism(plan: TrainingPlan, mechanism: Mechanism) -> TrainingPlan:
    """The same plan under `mechanism`, with a digest of its own. A plan that has it already is left as it is.

    To "secure-sum": every local step becomes a round of its own, so sampling and accounting see as many steps as before; the
    last stage's momentum becomes the server's, since a site has no second step; one other site may collude where there are
    three; the fallback that the noise is worth is stated; no site tells how well the model fits. To the others: the sums' table
    goes, rounds of one step stay.
    """
    if mechanism == plan.privacy.mechanism:
        return plan
    if mechanism != "secure-sum":
        return plan.but(privacy=plan.privacy.model_copy(update={"mechanism": mechanism, "secure_sum": None}))
    if not len(plan.sites) > 1:
        raise PlanRefused("a secure sum needs at least two sites; take a recipe with more")
    stages = [stage.model_copy(update={"rounds": stage.rounds * stage.local_steps, "local_steps": 1}) for stage in plan.stages]
    optimizer = plan.federation.optimizer or _as_far(plan.stages[-1])
    federation = plan.federation.model_copy(update={"quorum": len(plan.sites), "aggregate": None, "optimizer": optimizer})
    rests_on = SecureSum(fallback_epsilon=_ANY, dropped=0, colluding=colluders(len(plan.sites)))
    privacy = plan.privacy.model_copy(update={"mechanism": "secure-sum", "secure_sum": rests_on, "fit_share": 0.0})
    summed = plan.but(stages=stages, federation=federation, privacy=privacy)
    return with_fallback(summed, [len(values) for values in initial_values(load_prior(summed), summed)])


def of_one_site(plan: TrainingPlan, site: Site) -> TrainingPlan:
    """The same training by `site` alone, with the phantom hospital of its name if the plan describes one."""
    federation = plan.federation.model_copy(update={"quorum": 1})
    rehearsal = plan.rehearsal and plan.rehearsal.model_copy(
        update={"hospitals": tuple(one for one in plan.rehearsal.hospitals if one.name == site.name)}
    )
    return plan.but(sites=[site], federation=federation, rehearsal=rehearsal)


def _as_far(stage: Stage) -> Optimizer:
    """Momentum at the server that goes as far in a round as a site's own, which begins at zero in every round."""
    kept, steps = stage.momentum, stage.local_steps
    reach = sum((1 - kept**step) / (1 - kept) for step in range(1, steps + 1)) / steps         # of one gradient, on average
    return Optimizer(kind="momentum", rate=(1 - kept) * reach, momentum=kept)


_ANY = 1e9                                                   # until it is known what the noise is worth
