"""`braing3n-sim bench server --out FOLDER`: whole runs behind Flower with ever more sites, each of which trains.

Two sites' workers at a time on two cores, every weight of the tiny generator in each message. What is told is the server's
process as a whole, Flower's queues and Python included, until its last round closed; making the release comes after that.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from braing3n_core.errors import Braing3nError
from braing3n_core.journal import FILE
from braing3n_core.plan import Site, TrainingPlan
from braing3n_core.settings import Settings
from server.conduct import claim
from simulations import flower

Say = Callable[[str], None]
_PATIENTS = 4                                                # of each site


@dataclass(frozen=True)
class Crowd:
    """One number of sites that finished its rounds."""

    sites: int
    rounds: int
    megabytes: float                                         # of one update, 10^6 bytes
    peak_mb: float                                           # most that the server's process held
    seconds_per_round: float                                 # median of wall time; as many sites share the same cores


def bench(plan: TrainingPlan, counts: Sequence[int], rounds: int, out: Path, say: Say) -> list[Crowd]:
    """One run for each of `counts`. Raises Braing3nError if one does not end well."""
    rows = []
    for count in counts:
        say(f"{count} sites")
        rows.append(_measured(_sized(plan, count, rounds), out / f"sites-{count}", say))
    return rows


def told(rows: Sequence[Crowd]) -> Iterator[str]:
    """The table for people: what a site more costs is counted from the first row, in updates."""
    yield f"{'sites':>6}{'rounds':>8}{'MB':>8}{'server MB':>11}{'updates a site more':>21}{'s a round':>11}"
    for row in rows:
        more = growth(rows[0], row)
        cell = f"{more:21.2f}" if more is not None else f"{'':21}"
        yield f"{row.sites:6d}{row.rounds:8d}{row.megabytes:8.1f}{row.peak_mb:11.0f}{cell}{row.seconds_per_round:11.1f}"


def growth(first: Crowd, row: Crowd) -> float | None:
    """Memory for each site more than in `first`, in updates; None if there is none more."""
    more = row.sites - first.sites
    return (row.peak_mb - first.peak_mb) / more / row.megabytes if more else None


def as_json(rows: Sequence[Crowd]) -> str:
    """The table for programs."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def _sized(plan: TrainingPlan, count: int, rounds: int) -> TrainingPlan:
    sites = tuple(Site(name=f"site-{number:03d}", patients=_PATIENTS) for number in range(count))
    stage = next(stage for stage in plan.stages if stage.name == "generator")
    changes = {"trainable": "all", "rounds": rounds, "local_steps": 1, "share": 1.0, "learning_rate": 1e-4}
    federation = plan.federation.model_copy(update={"quorum": count, "deadline_s": 3600.0})
    rehearsal = plan.rehearsal.model_copy(update={"hospitals": ()}) if plan.rehearsal else None
    return plan.but(sites=sites, stages=(stage.model_copy(update=changes),), federation=federation, rehearsal=rehearsal)


def _measured(plan: TrainingPlan, out: Path, say: Say) -> Crowd:
    claim(plan, out)
    if code := flower.run(Settings(plan, out).config(), out, len(plan.sites), say):
        raise Braing3nError(f"{len(plan.sites)} sites ended with exit code {code}; {out / 'flower.log'} says why")
    lines = [json.loads(line) for line in (out / FILE).read_text(encoding="utf-8").splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    peak, seconds = max(line["peak_mb"] for line in rounds), statistics.median(line["seconds"] for line in rounds)
    return Crowd(len(plan.sites), len(rounds), rounds[-1]["numbers"] * 4 / 1e6, peak, seconds)
