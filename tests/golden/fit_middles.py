"""Prints the usual losses of braing3n_core/fit.py: `python tests/golden/fit_middles.py`, a minute on one core."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import torch

from braing3n_core.data.cohort import Patient, Scan
from braing3n_core.data.patient import Wishes, people
from braing3n_core.fit import losses
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import T1W, Hospital, Stage
from braing3n_core.prior import SHIPPED, read_prior
from braing3n_core.training import drawn_once, prepare
from server.trajectory import visits_of

PEOPLE, SEED, OTHER = 60, 20261128, "FLAIR"
STAGES = (("encoder", "flow"), ("decoder", "flow"), ("generator", "flow"), ("generator", "mean"), ("spread", "flow"),
          ("trajectory", "flow"), ("trajectory", "mean"), ("contrast", "flow"))      # fmt: skip


def cohort(count: int, seed: int, hospital: Hospital) -> list[Patient]:
    """Phantoms with two visits, each with a T1w and a FLAIR."""
    found, preset = [], PRESETS["tiny"]
    wishes = Wishes(modalities=(T1W, OTHER), visits=2, years=2.0, rescanned=False)
    for number, person in enumerate(people(preset, count, seed, hospital, wishes)):
        known = list(zip(person.visits, visits_of(person, preset), strict=True))
        by_name = {name: tuple(Scan(visit.images[name][None], dict(conditions), name) for visit, conditions in known)
                   for name in (T1W, OTHER)}                 # fmt: skip
        found.append(Patient(f"sub-{number:04d}", by_name[T1W], held_out=False, others=by_name[OTHER]))
    return found


def measured(model: Brain, people: Sequence[Patient], name: str, learns: str) -> list[float]:
    """Each person's loss."""
    stage = Stage.model_validate({
        "name": name, "trainable": "all" if learns == "flow" else {"generator": "group:population"}.get(name, "group:pace"),
        "rounds": 1, "local_steps": 1, "sample_rate": 1.0, "views": 4, "clip": 1.0, "learning_rate": 0.1, "share": 1.0,
        "learns": learns,
    })  # fmt: skip
    seen, draws = (prepare(stage.name, model, one.scans, one.others) for one in people), torch.Generator().manual_seed(SEED)
    return losses(model, stage, [drawn_once(one, stage, model, draws) if stage.once else one for one in seen])


if __name__ == "__main__":
    brain = read_prior(SHIPPED / "tiny.safetensors", parts=("trajectory", "spread", OTHER))
    public = cohort(PEOPLE, SEED, Hospital(name="public"))
    for stage_name, way in STAGES:
        found = measured(brain, public, stage_name, way)
        low, high = (statistics.quantiles(found, n=20)[place] for place in (0, -1))
        between = f"nine of ten between {low:.3g} and {high:.3g}"
        sys.stdout.write(f"{stage_name:<10} {way:<5} mean {statistics.mean(found):.3g}, {between}\n")
