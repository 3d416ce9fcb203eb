"""A recipe from beginning to end: the federation through Flower, the same without privacy, the quality of both, the release."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from braing3n_core.console import heartbeat
from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.errors import OK
from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.settings import Settings
from server import fit
from server.conduct import claim
from server.finish import provenance, read_rounds
from server.lost_sums import lost_sums
from server.release.edition import Edition
from server.release.publish import Extras, publish
from server.release.stages import finished_run
from simulations import flower, quality
from simulations.federation import federate, without_privacy
from simulations.phantom_consortium import PhantomConsortium
from simulations.summary import written


def rehearse(settings: Settings, say: Say) -> int:
    """Run the plan of `settings` and fill its output folder. Returns the documented exit code.

    Guarantee: <out>/summary.json exists only after everything succeeded.
    """
    plan, out, started = settings.plan, settings.out, time.monotonic()
    (out / "summary.json").unlink(missing_ok=True)
    claim(plan, out)
    if code := flower.run(settings.config(), out, len(plan.sites), say):
        return code
    trained = time.monotonic()
    with heartbeat(say, "reading the scans back"):
        cohorts = {site.name: _cohort(settings, site.name) for site in plan.sites}
    arms = _arms(plan, out, cohorts, say)
    with heartbeat(say, "measuring quality"):
        held_out = [patient for cohort in cohorts.values() for patient in cohort.held_out]
        rows, (requested, measured) = quality.panel(plan, arms, held_out, _progress(say))
    consortium = PhantomConsortium(settings, cohorts, say)
    extras = Extras(
        quality=rows, rounds=read_rounds(out), fits=fit.read(out), provenance=provenance(),
        control=(requested.tolist(), measured.tolist()), ranges={"ventricles": quality.CONTROL_ML},
    )
    with heartbeat(say, "making the release"):
        edition = Edition.today(plan.study)
        census = consortium.census()
        release = publish(plan, arms["private"], out, consortium, edition, extras=extras, replace=True, census=census)
        if plan.privacy.private:
            consortium.sign(release)
    seconds = {"federation": trained - started, "comparison and quality": time.monotonic() - trained}
    lost = lost_sums(out / "checkpoints")
    write_atomically(out / "summary.json", written(plan, release, consortium.privacy(), lost, rows, seconds))
    return OK


def _cohort(settings: Settings, site: str) -> Cohort:
    """The site's scans from the cache that it filled itself."""
    return load_cohort(settings.bids(site), settings.plan, settings.folder(site) / "cache")


def _arms(plan: TrainingPlan, out: Path, cohorts: Mapping[str, Cohort], say: Say) -> dict[str, Brain]:
    """The public prior, what the federation made of it, and what it would have made without privacy."""
    arms = {"prior": load_prior(plan), "private": finished_run(out, load_prior)[1]}
    if plan.rehearsal is not None and plan.rehearsal.compare_non_private:
        say("the same training without privacy, for comparison")
        with heartbeat(say, "training without privacy"):
            arms["non_private"] = federate(without_privacy(plan), out / "non-private", cohorts, say)
    return arms


def _progress(say: Say) -> quality.Progress:
    return lambda what, done, total: say(f"{what}, {done} of {total} done")
