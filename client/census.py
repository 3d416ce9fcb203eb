"""A site's word on the census: how many of its patients are in each bin of each variable, noised, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from braing3n_core.census import row_of, sizes
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from privacy.egress import CENSUS_STAGE, Census, Cleared, Egress, purpose_of
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from privacy.marginals import counted, noised
from privacy.randomness import SecretNoise

if TYPE_CHECKING:
    from client.site import Site


def take(site: Site, ledger: Ledger, egress: Egress) -> Cleared:
    """Count once, or send the same noisy counts again.

    Guarantee: the counts cost what the plan's census costs, charged before a patient is looked at, and there is one census of a
    plan, whoever asks how often. Each patient counts once, by the first scan: held-out patients too, for nothing is trained.
    """
    # 1. Does the plan take a census, and is it private?
    plan = site.plan
    if plan.census is None:
        raise PlanRefused("the plan this site runs takes no census; agree on a [census] table first")
    event = site.charge(CENSUS_STAGE)
    if not isinstance(event, SampledGaussian):
        raise PlanRefused("a census without privacy is never told; choose a mechanism that has some")
    # 2. Pay, or find what was paid before.
    purpose = purpose_of(plan.digest, CENSUS_STAGE, 1)
    reservation, made = ledger.paid_once(event, purpose, site.limit)
    # 3. Count, then noise; kept before it is sent, so that a lost reply is repeated and not drawn anew.
    kept = site.folder / "answers" / f"{reservation.digest}.census"
    if not kept.exists():
        if made:
            raise IntegrityError("what this site told of the census is gone; restore the site's folder")
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        people = (row_of(patient.scans[0].conditions, plan) for patient in site.cohort.patients)
        counts = noised(counted(people, sizes(plan)), event, SecretNoise())
        write_atomically(kept, " ".join(str(count) for count in counts.tolist()).encode())
    told = tuple(int(word) for word in kept.read_text(encoding="ascii").split())
    return egress.send(Census(site.name, plan.digest, reservation, told), sum(sizes(plan)))
