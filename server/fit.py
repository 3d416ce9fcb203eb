"""How well the model fits the sites, before and after each stage, as they tell it: asked once, kept in <out>/fit.jsonl.

All of it is made of noised sums and of the plan, and stands beside the noise it has. A number that does not come is not waited
for a second time: training never depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import numpy as np

from braing3n_core.charges import charges
from braing3n_core.errors import ReplyRefused
from braing3n_core.fit import scale_of
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.protocol import Request
from privacy.egress import FIT_STAGE, LARGEST_FIT, End
from privacy.events import SampledGaussian
from server import monitor
from server.coordinator import Coordinator, spent_by

if TYPE_CHECKING:
    from server.conduct import Progress, Reply, Sites

FILE: Final = "fit.jsonl"
_SURE: Final = 2.0                                           # standard deviations that a change has to be beyond


@dataclass(frozen=True)
class Told:
    """A number beside the standard deviation of its noise, in units of the stage's loss: of a site, or of all that told it."""

    value: float
    noise: float

    def __str__(self) -> str:
        return f"{self.value:.3g} +- {self.noise:.2g}"


@dataclass(frozen=True)
class Reading:
    """What was told at one end of a stage. Before it, the mean loss; after it, by how much that moved."""

    stage: str
    end: End
    sites: Mapping[str, Told]
    pooled: Told                                             # weighted by declared patients

    @property
    def verdict(self) -> str:
        """What a change of the loss means, or that it means nothing; empty before the stage."""
        if self.end == "before":
            return ""
        if not abs(self.pooled.value) > _SURE * self.pooled.noise:
            return "no more than noise may do"
        return "fits better than before" if self.pooled.value < 0 else "fits WORSE than before"

    def in_words(self) -> str:
        """For a person; whatever noise may have made is called noise."""
        who = ", ".join(f"{site} {told}" for site, told in self.sites.items())
        if self.end == "before":
            return f"{self.stage} begins at a loss of {self.pooled} ({who})"
        return f"{self.stage} changed the loss by {self.pooled}: {self.verdict} ({who})"


def ask(run: Coordinator, sites: Sites, progress: Progress, out: Path, end: End, gone: Iterable[str]) -> None:
    """Ask all sites but those that are `gone` how well the run's values fit: once for each end of a stage.

    After a stage it is asked before the checkpoint that ends the stage is written: a run cut short there closes the round
    again, which costs nobody anything, and asks again. Who does not answer is left out.
    """
    stage = _stage_at(run, end)
    if not run.plan.privacy.tells_fit or any((row.stage, row.end) == (stage.name, end) for row in read(out)):
        return
    values, gone = _values_at(run, stage), set(gone)
    request = Request(run.plan.digest, stage.name, 1 if end == "before" else stage.rounds, values, end=end)
    asked = {site.name: request for site in run.plan.sites if site.name not in gone}
    units, deadline = dict[str, int](), monotonic() + run.plan.federation.deadline_s
    heard = set[str]()
    for reply in sites.ask(asked):
        if reply is not None:
            heard.add(reply[0])
            _take(run, request, reply, units, progress)
        if asked.keys() <= heard or not monotonic() < deadline:
            break
        progress.waiting(f"{stage.name}: {len(heard)} of {len(asked)} sites said how well the model fits {end} it")
    if units:
        found = reading(run.plan, stage, end, units)
        _append(out / FILE, found)
        monitor.fit_told(run.plan, out, found.stage, end, _scalars(found))
        progress.line(found.in_words())


def reading(plan: TrainingPlan, stage: Stage, end: End, units: Mapping[str, int]) -> Reading:
    """Noised sums by site as numbers, each beside its noise. Divisors are declared patients, never counts."""
    scale, cost = scale_of(stage.name, end), charges(plan, ())[FIT_STAGE]
    sigma = cost.noise_multiplier if isinstance(cost, SampledGaussian) else math.nan
    declared = {site.name: site.patients for site in plan.sites if site.name in units}
    found = {
        site: Told(scale.told(units[site], patients), scale.deviation(sigma, patients)) for site, patients in declared.items()
    }
    everybody = sum(declared.values())
    pooled = Told(scale.told(sum(units.values()), everybody), scale.deviation(sigma, everybody, len(units)))
    return Reading(stage.name, end, found, pooled)


def read(out: Path) -> list[Reading]:
    """What a run was told, in order; a line that a crash cut short is left out."""
    path = out / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [row for line in lines if (row := _read(line)) is not None]


def _stage_at(run: Coordinator, end: End) -> Stage:
    """The stage whose beginning or end the run stands at; the next stage is open as soon as one is closed."""
    behind = end == "after" and run.state.rounds == 0
    return run.plan.stages[run.state.stage - behind]


def _values_at(run: Coordinator, stage: Stage) -> np.ndarray:
    """The run's values up to and including `stage`."""
    stages = run.plan.stages.index(stage) + 1
    return run.state.values[: sum(len(part) for part in run.initial[:stages])]


def _take(run: Coordinator, request: Request, reply: Reply, units: dict[str, int], progress: Progress) -> None:
    site, header, _ = reply
    try:
        units.setdefault(site, _checked(run.plan, request, site, header))
        run.note_spent(site, spent_by(header))
    except ReplyRefused as error:
        progress.line(str(error))


def _checked(plan: TrainingPlan, request: Request, site: str, header: Mapping[str, object]) -> int:
    """The number in a reply. Raises ReplyRefused unless it is the one that was asked for."""
    if header.get("kind") == "refusal":
        raise ReplyRefused(f"{site} does not say how well the model fits: {header.get('code')}")
    asked = {"kind": "fit", "site": site, "plan": request.plan, "stage": request.stage, "end": request.end,
             "start": request.digest}                        # fmt: skip
    units = header.get("units")
    known = site in {one.name for one in plan.sites} and {key: header.get(key) for key in asked} == asked
    if not (known and type(units) is int and abs(units) <= LARGEST_FIT):
        raise ReplyRefused(f"{site} replied to another question than how well the model fits; the reply was dropped")
    return units


def _scalars(found: Reading) -> dict[str, float]:
    tags = {"all sites": found.pooled, **found.sites}
    return {f"{name}/{site}": number for site, told in tags.items() for name, number in asdict(told).items()}


def _append(path: Path, found: Reading) -> None:
    with path.open("a", encoding="utf-8") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")                                 # a line that a crash cut short
        file.write(json.dumps(asdict(found), sort_keys=True, allow_nan=False) + "\n")


def _read(line: str) -> Reading | None:
    try:
        row = json.loads(line)
        sites = {str(site): Told(**told) for site, told in row["sites"].items()}
        return Reading(row["stage"], row["end"], sites, Told(**row["pooled"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
