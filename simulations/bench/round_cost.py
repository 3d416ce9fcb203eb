"""`braing3n-sim bench round`: what a round costs beyond local training, ours and plain Flower's FedAvg in turn on one machine.

Overhead is a round's wall time, its checkpoint included, less what the slowest site trained in that round. Both send every
weight of the tiny generator; the first round, in which workers start and scans are read, is left out. Seconds of overhead
hardly depend on how long sites train, so its share at another length follows. The floor of training is the arithmetic of the
rows that a site can expect to draw; that of the overhead, one reading and one writing of all that is sent and kept (floor.py).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core.errors import Braing3nError
from braing3n_core.journal import FILE
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings
from server.conduct import claim
from simulations import flower
from simulations.bench.estimate import estimate
from simulations.bench.floor import FLOAT, Machine, Work, training_bytes

Say = Callable[[str], None]
Least = tuple[float, float]                                  # seconds: of a site's training, and of the overhead
PLAIN = ("simulations.bench.plain_fedavg:server", "simulations.bench.plain_fedavg:client")
_LEARNING_RATE = 1e-4                                        # all weights at once: a larger one diverges without a clip


@dataclass(frozen=True)
class Row:
    """One system, medians over rounds, in seconds of wall time."""

    system: str
    rounds: int                                              # that were counted
    training: float                                          # of the slowest site
    round: float
    overhead: float
    training_least: float                                    # seconds that this machine needs for it
    overhead_least: float

    @property
    def share(self) -> float:
        """Overhead as a part of the slowest site's training."""
        return self.overhead / self.training


def bench(plan: TrainingPlan, steps: int, rounds: int, out: Path, say: Say) -> list[Row]:
    """Ours, then plain FedAvg: `plan`'s sites and patients, one stage of `rounds` rounds of `steps` local steps."""
    todo = sized(plan, steps, rounds)
    floors, found = least(todo, 1), []
    for system, apps in (("braing3n", flower.OURS), ("Flower FedAvg", PLAIN)):
        say(f"{system}: {rounds} rounds of {steps} local steps")
        found.append(_measured(system, todo, out / system.replace(" ", "-").lower(), apps, floors, say))
    return found


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people."""
    floors = f"{'training / floor':>18}{'overhead / floor':>18}"
    yield f"{'system':<16}{'rounds':>7}{'training s':>12}{'round s':>10}{'overhead s':>12}{'share':>8}{floors}"
    for row in rows:
        cells = f"{row.training:12.1f}{row.round:10.1f}{row.overhead:12.2f}{row.share:8.1%}"
        floors = f"{row.training / row.training_least:18.1f}{row.overhead / row.overhead_least:18.1f}"
        yield f"{row.system:<16}{row.rounds:7d}{cells}{floors}"


def as_json(rows: Sequence[Row]) -> str:
    """The table for programs."""
    return json.dumps([{**asdict(row), "share": row.share} for row in rows], indent=1)


def measured(system: str, walls: Sequence[float], slowest: Sequence[float], least: Least) -> Row:
    """The row of rounds that took `walls`, in which the slowest site trained for `slowest`; the first of both is left out."""
    pairs = list(zip(walls, slowest, strict=True))[1:]
    rounds, training, over = ([*map(f, pairs)] for f in (lambda p: p[0], lambda p: p[1], lambda p: p[0] - p[1]))
    return Row(system, len(pairs), statistics.median(training), statistics.median(rounds), statistics.median(over), *least)


def least(plan: TrainingPlan, threads: int) -> Least:
    """Of a round of the plan's only stage, so many threads a site: the largest site's training, and what is sent and kept."""
    stage, size = plan.stages[0], estimate(plan.preset, PRESETS[plan.preset], plan.variables, 1)
    weights = size.parameters[stage.name]
    patients = (1 - plan.data.held_out) * max(site.patients for site in plan.sites)
    rows = patients * stage.sample_rate * stage.views
    step = Work(rows * size.step_flops[stage.name], training_bytes(weights))
    sent = 2 * len(plan.sites) + 1                           # to each site and back, and the checkpoint
    moved = Work(0, 2 * FLOAT * weights * sent)
    machine = Machine.measured(threads, time.monotonic)
    return machine.least(stage.local_steps * step), machine.least(moved)


def _measured(system: str, plan: TrainingPlan, out: Path, apps: Sequence[str], floors: Least, say: Say) -> Row:
    claim(plan, out)
    if code := flower.run(Settings(plan, out).config(), out, len(plan.sites), say, apps):
        raise Braing3nError(f"{system} ended with exit code {code}; {out / 'flower.log'} says why")
    sites = [seconds_of(out / "sites" / site.name, "trained") for site in plan.sites]
    return measured(system, seconds_of(out, "round"), [max(each) for each in zip(*sites, strict=True)], floors)


def sized(plan: TrainingPlan, steps: int, rounds: int) -> TrainingPlan:
    """`plan` with one stage, of so many rounds and local steps, that trains and sends every weight of the generator."""
    stage = next(stage for stage in plan.stages if stage.name == "generator")
    changes = {"trainable": "all", "rounds": rounds, "local_steps": steps, "share": 1.0, "learning_rate": _LEARNING_RATE}
    federation = plan.federation.model_copy(update={"quorum": len(plan.sites), "deadline_s": 3600.0})
    return plan.but(stages=(stage.model_copy(update=changes),), federation=federation)


def seconds_of(folder: Path, event: str) -> list[float]:
    """The seconds of every such line of a journal, in order."""
    lines = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
    return [float(line["seconds"]) for line in lines if line["event"] == event]
