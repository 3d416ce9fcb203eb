"""`braing3n-sim bench server`: what the server holds and does in a round as sites become many, with a model of any size.

The coordinator alone, with updates made here: no network, no training. Flower's own queue comes on top of it in a real run; it
holds each reply until the coordinator takes it.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from braing3n_core.plan import Aggregate, Site, TrainingPlan
from server.coordinator import Coordinator

Say = Callable[[str], None]
_PATIENTS = 100                                              # that each site declares
_BYTES = 4                                                   # of a float32


@dataclass(frozen=True)
class Row:
    """One number of sites. Memory is the most that was allocated beyond what stood before the first round, in model copies."""

    sites: int
    rounds: int
    rule: str
    megabytes: float                                         # of one update, 10^6 bytes
    copies: float
    seconds_per_reply: float                                 # of the processor: take, check and add


def bench(
    plan: TrainingPlan, counts: Sequence[int], megabytes: float, rounds: int, rule: Aggregate | None, say: Say
) -> list[Row]:
    """One row for each of `counts`. The plan gives everything but sites, rounds and the rule of aggregation."""
    rows = []
    for count in counts:
        say(f"{count} sites")
        rows.append(_measured(_sized(plan, count, rounds, rule), megabytes))
    return rows


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people."""
    yield f"{'sites':>6}{'rounds':>8}{'MB':>8}  {'rule':<14}{'model copies held':>18}{'ms a reply':>12}"
    for row in rows:
        copies, each = f"{row.copies:18.2f}", f"{1000 * row.seconds_per_reply:12.1f}"
        yield f"{row.sites:6d}{row.rounds:8d}{row.megabytes:8.1f}  {row.rule:<14}{copies}{each}"


def as_json(rows: Sequence[Row]) -> str:
    """The table for programs."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def _sized(plan: TrainingPlan, count: int, rounds: int, rule: Aggregate | None) -> TrainingPlan:
    sites = tuple(Site(name=f"site-{number:03d}", patients=_PATIENTS) for number in range(count))
    stage = plan.stages[0].model_copy(update={"rounds": rounds, "share": 1.0})
    federation = plan.federation.model_copy(update={"quorum": count, "aggregate": rule})
    return plan.but(sites=sites, stages=(stage,), federation=federation, rehearsal=None)


def _measured(plan: TrainingPlan, megabytes: float) -> Row:
    length = max(1, round(megabytes * 1e6 / _BYTES))
    update = np.random.default_rng(1).normal(0, 1e-3, length).astype(np.float32)
    run = Coordinator(plan, [np.zeros(length, np.float32)])
    tracemalloc.start()
    try:
        began = time.process_time()
        while not run.done:
            for site in plan.sites:
                run.accept(site.name, _header(run, site.name), update.copy())         # its own array, as from the wire
            run.close_round()
        seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    rounds = plan.stages[0].rounds
    rule = plan.federation.aggregate.rule if plan.federation.aggregate else "mean"
    each = seconds / (rounds * len(plan.sites))
    return Row(len(plan.sites), rounds, rule, megabytes, peak / (_BYTES * length), each)


def _header(run: Coordinator, site: str) -> dict[str, str | int | float | bool]:
    request = run.request()
    return {
        "site": site, "plan": request.plan, "stage": request.stage, "round": request.round, "start": request.digest,
        "epsilon": 0.1,
    }  # fmt: skip
