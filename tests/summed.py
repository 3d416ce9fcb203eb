"""Three sites of one study with secure sums, in one process, and the server's side of one sum to drive them with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braing3n_core.charges import terms
from braing3n_core.data.cohort import Cohort, Patient
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request, initial_values
from client.site import Site
from privacy.egress import Cleared
from server.summing import Summing
from simulations.federation import local_site
from tests.client.studies import PEOPLE, brain, stage, study

NAMES = ("north", "south", "east")
Story = Callable[[str, Request], Request]                    # what a lying server makes of a request


def summed(names: Sequence[str] = NAMES, dropped: int = 0, colluding: int = 1, **changes: Any) -> TrainingPlan:
    rests_on = {"fallback_epsilon": 12.0, "dropped": dropped, "colluding": colluding}
    tables = {
        "sites": [{"name": name, "patients": 8} for name in names],
        "privacy": {"mechanism": "secure-sum", "epsilon": 4.0, "delta": 1e-5, "secure_sum": rests_on},
        "stages": [stage("decoder", "group:style", local_steps=1, share=1.0)],
        "federation": {"quorum": len(names) - dropped, "deadline_s": 60.0},
    }
    return study(**tables | changes)


def sites(plan: TrainingPlan, out: Path, people: Sequence[Patient] = PEOPLE) -> dict[str, Site]:
    return {known.name: local_site(plan, known.name, out, Cohort(tuple(people), ()), brain) for known in plan.sites}


@functools.cache
def initial(canonical: str) -> tuple[np.ndarray, ...]:
    plan = TrainingPlan.from_json(canonical)
    return initial_values(brain(plan), plan)


def begun(plan: TrainingPlan, number: int = 1, attempt: int = 1) -> Summing:
    """The server's side of a sum in the plan's first stage."""
    stage, values = plan.stages[0], initial(plan.canonical())
    agreed = terms(plan, [len(part) for part in values], stage, number, attempt)
    return Summing(agreed, Request(plan.digest, stage.name, number, values[0]), attempt)


def honest(name: str, asked: Request) -> Request:
    return asked


def taken(
    summing: Summing, here: Mapping[str, Site], silent: Collection[str] = (), story: Story = honest
) -> dict[str, tuple[Request, Cleared]]:
    """Ask every site but the silent ones for the open step, and close it if enough spoke; what was asked and answered."""
    said = {}
    for name, asked in summing.requests().items():
        if name not in silent:
            told = story(name, asked)
            answer = here[name].round(told)
            said[name] = (told, answer)
            if answer.header["kind"] == "refusal":
                summing.lost.add(name)
            else:
                summing.accept(name, answer.header, answer.values)
    if summing.enough:
        summing.close_step()
    return said


def through(summing: Summing, here: Mapping[str, Site], until: str = "") -> np.ndarray | None:
    """Every step up to `until`, or to the end: the sum."""
    while not summing.done and summing.step != until:
        taken(summing, here)
    return summing.total() if summing.done else None
