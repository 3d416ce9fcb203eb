"""A site's word on how well the model fits its training patients, before and after a stage: one noised number each, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.fit import losses, scale_of
from braing3n_core.plan import Stage
from braing3n_core.protocol import Request, at_stage, beginning
from client.refusal import StaleRequest
from privacy.bounded_sum import BoundedSum, noised_sum, summed
from privacy.egress import FIT_STAGE, Cleared, Egress, End, Fit, fit_purpose
from privacy.events import SampledGaussian
from privacy.ledger import Ledger, Reservation
from privacy.randomness import SecretNoise

if TYPE_CHECKING:
    from client.site import Site


def tell(site: Site, ledger: Ledger, egress: Egress, request: Request, stage: Stage, end: End) -> Cleared:
    """Measure once, or send the same noisy number again.

    Guarantee: a number costs what the plan's numbers cost, charged before a loss is computed, and there is one for each end of
    each stage, whatever values the server sends and however often. Each patient counts once, clipped to the public scale;
    held-out patients do not.
    """
    # 1. Does the plan tell it, and do the values fit the model?
    if not site.plan.privacy.tells_fit:
        raise PlanRefused("the plan this site runs tells no fit; agree on [privacy] fit_share first")
    event, purpose = site.charge(FIT_STAGE), fit_purpose(site.plan.digest, stage.name, end)
    if not isinstance(event, SampledGaussian):
        raise PlanRefused("a fit without privacy is never told; choose a mechanism that has some")
    at_stage(site.model(), site.plan, stage.name, request.values)
    _ = site.cohort
    # 2. Is the code still private? This may be the first number that leaves in a run.
    site.refuse_broken_code(ledger)
    # 3. Pay, or find what was paid before. What failed once stays paid and is not tried again: training needs the rest.
    before = [reserved for reserved in ledger.reservations if reserved.purpose == purpose]
    if before and ledger.standing(event, purpose) is None and not any(ledger.released(reserved) for reserved in before):
        raise StaleRequest("measuring this failed here before and stays paid; go on without it")
    reservation, made = ledger.paid_once(event, purpose, site.limit)
    kept = site.kept(reservation, "fit")
    # 4. Measure, then noise; kept before it is sent, so that a lost reply is repeated and not drawn anew.
    if not kept.exists():
        if made:
            raise IntegrityError("what this site told of a stage's fit is gone; restore the site's folder")
        try:
            units = noised_sum(exact(site, stage, end, request.values), event, SecretNoise())
            write_atomically(kept, f"{request.digest} {units}".encode())
        except Exception:
            ledger.abandon(reservation)
            raise
    return egress.send(_message(site, stage, end, reservation, kept.read_text(encoding="ascii")))


def exact(site: Site, stage: Stage, end: End, values: np.ndarray) -> BoundedSum:
    """The sum over training patients that noise is added to. Never leaves the site.

    Guarantee: that of privacy.bounded_sum.summed. Both ends of a change are measured on this site's own idea of where the stage
    began, never on a number that left before.
    """
    scale, found = scale_of(stage.name, end), _losses(site, stage, values)
    if end == "after":
        began = _losses(site, stage, beginning(site.model(), site.plan, stage.name, values))
        found = [after - before for after, before in zip(found, began, strict=True)]
    return summed(found, scale.middle, scale.reach)


def _losses(site: Site, stage: Stage, values: np.ndarray) -> list[float]:
    model = site.model()
    at_stage(model, site.plan, stage.name, values)
    return losses(model, stage, site.patients_at(model, stage, values))


def _message(site: Site, stage: Stage, end: End, reservation: Reservation, kept: str) -> Fit:
    start, units = kept.split()
    return Fit(site.name, site.plan.digest, stage.name, end, start, reservation, int(units))
