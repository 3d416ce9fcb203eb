"""The same sites and the same coordinator in one process: for tests, for comparisons without privacy, for misbehaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from braing3n_core.data.cohort import Cohort
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import Request, finished
from client.enrolled import phantoms
from client.site import Site
from privacy.egress import Cleared
from server.conduct import Prior, Progress, Reply, Say, train
from simulations.mechanisms import with_mechanism

Tamper = Callable[[Request, Reply], Reply | None]            # what becomes of a reply on its way; None: it never comes


def untouched(request: Request, reply: Reply) -> Reply | None:
    """An honest network."""
    return reply


class LocalSites:
    """Sites reached by plain calls, one after the other, through a network that may tamper with what they say."""

    def __init__(self, sites: Mapping[str, Site], tamper: Tamper = untouched) -> None:
        self._sites, self._tamper = sites, tamper

    def ready(self) -> Iterator[Reply | None]:
        """Each site's word on whether it can take part."""
        for site in self._sites.values():
            yield _reply(site.ready())

    def ask(self, requests: Mapping[str, Request]) -> Iterator[Reply | None]:
        """Each asked site's round, or its step of one."""
        for name, request in requests.items():
            yield self._tamper(request, _reply(self._sites[name].round(request)))


def local_site(plan: TrainingPlan, name: str, out: Path, cohort: Cohort, prior: Prior = load_prior) -> Site:
    """One site of `plan` on scans that are in memory already; it keeps its ledger and logs under `out`."""
    keys = phantoms({site.name: out / "sites" / site.name for site in plan.sites}, name)
    return Site(
        name, plan, out / "sites" / name, out, enrolled=keys, model_source=prior, cohort_source=lambda *_: cohort
    )


def without_privacy(plan: TrainingPlan) -> TrainingPlan:
    """The same rehearsal without any mechanism: what the hospitals' data could teach if nobody's privacy were kept."""
    return with_mechanism(plan, "non-private")


def federate(
    plan: TrainingPlan,
    out: Path,
    cohorts: Mapping[str, Cohort],
    say: Say,
    tamper: Tamper = untouched,
    prior: Prior = load_prior,
) -> Brain:
    """Train `plan` in this process and return the finished model. Takes up what is unfinished under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    sites = {known.name: local_site(plan, known.name, out, cohorts[known.name], prior) for known in plan.sites}
    run = train(plan, out, LocalSites(sites, tamper), Progress(plan, say), prior)
    model = prior(plan)
    finished(model, plan, run.state.values)
    return model


def _reply(cleared: Cleared) -> Reply:
    return str(cleared.header["site"]), cleared.header, cleared.values
