"""What a run tells those who watch it: a journal for programs and scalars for TensorBoard, both in the run's own folder.

All of it is in rounds.jsonl, fit.jsonl or run.json too; neither file is released, and a disk that is full costs lines, not
rounds.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from braing3n_core.journal import journal
from braing3n_core.plan import TrainingPlan
from server.scalars import FILE, append_scalars, scalars_of

SCALARS = "tensorboard"


def begun(plan: TrainingPlan, out: Path, stage: int, rounds: int) -> None:
    """A run begins, or is taken up where `rounds` of stage number `stage` are closed."""
    closed = _step(plan, plan.stages[stage].name, rounds)
    facts = {"study": plan.study, "plan": plan.digest, "sites": [site.name for site in plan.sites], "closed": closed}
    journal(out, "taken up" if closed else "begun", facts)


def round_closed(plan: TrainingPlan, out: Path, row: Mapping[str, object]) -> None:
    """A round ended; `row` is its line of rounds.jsonl. The journal has the most memory that this process held so far, too."""
    journal(out, "round", {**row, "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)})
    step = _step(plan, str(row["stage"]), int(str(row["round"])))
    with contextlib.suppress(OSError):
        append_scalars(out / SCALARS / FILE, time.time(), step, scalars_of(row))


def fit_told(plan: TrainingPlan, out: Path, stage: str, end: str, values: Mapping[str, float]) -> None:
    """Sites said how well the model fits at one end of a stage; `values` and their noise, by site."""
    journal(out, "fit", {"stage": stage, "end": end, **values})
    step = _step(plan, stage, 0 if end == "before" else plan.stage(stage).rounds)
    with contextlib.suppress(OSError):
        tags = {f"fit {end} {stage}/{name}": value for name, value in values.items()}
        append_scalars(out / SCALARS / FILE, time.time(), step, tags)


def ended(out: Path, verdict: Mapping[str, object]) -> None:
    """A run ended; `verdict` is run.json."""
    journal(out, "ended", verdict)


def _step(plan: TrainingPlan, stage: str, number: int) -> int:
    """A round counted over all stages."""
    earlier = takewhile(lambda one: one.name != stage, plan.stages)
    return sum(one.rounds for one in earlier) + number
