"""One phantom hospital of a rehearsal, as the plan describes it, written as an ordinary BIDS folder."""

from __future__ import annotations

from pathlib import Path

from braing3n_core.data.answers import write_people
from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.phantom import hospital_seed, phantoms, write_bids
from braing3n_core.plan import T1W, Hospital, Rehearsal, Site, TrainingPlan


def write_hospital(folder: Path, site: Site, plan: TrainingPlan) -> None:
    """Write the site's phantoms; the folder is there whole or not at all, and one that is there stays."""
    if folder.exists():
        return
    rehearsal = plan.rehearsal or Rehearsal()
    seed = hospital_seed(plan.seed, [known.name for known in plan.sites].index(site.name))
    hospital = next((each for each in rehearsal.hospitals if each.name == site.name), Hospital(name=site.name))
    if rehearsal.visits > 1 or rehearsal.tumours or plan.modalities != (T1W,):
        wishes = Wishes(plan.modalities, rehearsal.visits, rehearsal.years, rehearsal.tumours)
        write_people(folder, people(plan.model, site.patients, seed, hospital, wishes), plan.model)
    else:
        write_bids(folder, phantoms(plan.model, site.patients, seed, hospital), plan.model, site.patients)
