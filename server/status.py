"""Where a consortium stands: who is enrolled, and each run's stage, round, sites and budgets. Reads only, at any time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2

from braing3n_core.files import write_atomically
from braing3n_core.flower_process import Say
from braing3n_core.page import script_hash
from braing3n_core.plan import TrainingPlan
from server import fit
from server.consortium import Consortium
from server.finish import Row, read_rounds
from server.lock import is_held
from server.lost_sums import in_words as lost_in_words
from server.lost_sums import lost_sums, spare_spent
from server.serve import Link

PAGE = "status.html"
_BETWEEN_S = 5.0                                             # the page reloads as often


@dataclass(frozen=True)
class SiteState:
    """One site in one run."""

    site: str
    patients: int                                            # as the plan declares
    replied: int                                             # rounds
    last: str                                                # what it did in the last closed round
    spent: float                                             # epsilon, as the site last said
    agreed: float

    @property
    def part(self) -> float:
        """Spent of agreed, 0 to 1."""
        return min(1.0, self.spent / self.agreed)


@dataclass(frozen=True)
class RunState:
    """One run. `state` is "running", "waiting" (may be started again), "finished" or "failed"."""

    study: str
    plan: str                                                # digest
    state: str
    why: str                                                 # what it ended with, if it did
    stage: str                                               # of the last closed round
    round: int
    closed: int                                              # rounds, of all stages
    rounds: int
    megabytes: float                                         # one update, 10^6 bytes; each site sends it once a round
    minutes_left: float                                      # NaN: not known yet
    lost: int                                                # secure sums that sites paid for and nobody could open
    spare: int                                               # rounds of each stage that the plan has in their place
    spare_spent: int                                         # of all stages together
    losses: tuple[str, ...]                                  # the same in words, a line for each stage that lost any
    fits: tuple[str, ...]                                    # how well the model fits, as sites told it, in words
    sites: tuple[SiteState, ...]


@dataclass(frozen=True)
class ConsortiumStatus:
    """What `braing3n-admin status` says."""

    time: str
    serving: bool
    enrolled: tuple[str, ...]
    runs: tuple[RunState, ...]

    def as_json(self) -> str:
        """For programs; a number that is not known is null, an infinite epsilon the text "infinite"."""
        return json.dumps(_finite(asdict(self)), indent=1, allow_nan=False)


def status(consortium: Consortium) -> ConsortiumStatus:
    """Read the consortium's folder."""
    runs = tuple(_run(folder) for folder in sorted((consortium.folder / "runs").glob("*")) if (folder / "plan.json").exists())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return ConsortiumStatus(now, Link(consortium).up, tuple(sorted(consortium.roster().keys)), runs)


def in_words(found: ConsortiumStatus) -> Iterator[str]:
    """The same for a person."""
    yield f"{found.time}: {'serving' if found.serving else 'not serving'}; enrolled: {', '.join(found.enrolled) or 'nobody'}"
    for run in found.runs:
        left = "" if math.isnan(run.minutes_left) else f", about {run.minutes_left:.0f} min left"
        where = f"{run.closed} of {run.rounds} rounds{left}, {run.megabytes:.3g} MB a site and round"
        yield f"{run.study} ({run.plan[:12]}) {run.state}: {where}{f'; {run.why}' if run.why else ''}"
        for line in (*run.losses, *run.fits):
            yield f"  {line}"
        for site in run.sites:
            yield f"  {site.site:<12} {site.last}, {site.replied} replies, epsilon {site.spent:.3g} of {site.agreed:g}"


def write_page(consortium: Consortium) -> Path:
    """<consortium>/status.html: one page that loads nothing from elsewhere and reloads itself until its reader says stop."""
    every = int(_BETWEEN_S)
    text = files("server").joinpath("status.html.j2").read_text(encoding="utf-8").replace("{{ every_s }}", str(every))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    page = template.render(found=status(consortium), isnan=math.isnan, script_hash=script_hash(text))
    write_atomically(consortium.folder / PAGE, page.encode())
    return consortium.folder / PAGE


def watch(consortium: Consortium, say: Say) -> None:
    """Say where things stand, and renew the page, until it is interrupted."""
    while True:
        write_page(consortium)
        say("\n".join(in_words(status(consortium))))
        time.sleep(_BETWEEN_S)


def _run(folder: Path) -> RunState:
    plan = TrainingPlan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    rows = _last_said(read_rounds(folder))
    total = sum(stage.rounds for stage in plan.stages)
    last: Row = rows[-1] if rows else {}
    state, why = _ended(folder)
    lost = lost_sums(folder / "checkpoints")
    sites = tuple(_site(plan, known.name, rows) for known in plan.sites)
    return RunState(
        study=plan.study, plan=plan.digest, state=state, why=why, stage=str(last.get("stage", "")),
        round=_whole(last.get("round")), closed=len(rows), rounds=total, megabytes=_megabytes(last),
        minutes_left=_minutes_left(folder, total - len(rows)) if state == "running" else math.nan,
        lost=len(lost), spare=plan.privacy.spare, spare_spent=sum(spare_spent(plan, lost).values()),
        losses=tuple(lost_in_words(plan, lost)), fits=tuple(row.in_words() for row in fit.read(folder)), sites=sites,
    )  # fmt: skip


def _last_said(rows: list[Row]) -> list[Row]:
    """One row a round: a round whose checkpoint was lost in a crash was closed twice."""
    return list({(row.get("stage"), row.get("round")): row for row in rows}.values())


def _ended(folder: Path) -> tuple[str, str]:
    if is_held(folder):
        return "running", ""
    try:
        verdict = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return ("failed" if verdict["exit_code"] else "finished"), str(verdict["error"])
    except (OSError, ValueError, KeyError):
        return "waiting", "no server app works on it; braing3n-admin start takes it up"


def _site(plan: TrainingPlan, name: str, rows: list[Row]) -> SiteState:
    last: Row = rows[-1] if rows else {}
    refused = last.get("refused")
    said = refused.get(name) if isinstance(refused, dict) else None
    did = "replied" if name in _names(last) else f"refused ({said})" if said else "silent" if rows else "not asked yet"
    spent = [_spent(row, name) for row in rows]
    replied = sum(name in _names(row) for row in rows)
    return SiteState(name, plan.site(name).patients, replied, did, spent[-1] if spent else 0.0, plan.privacy.epsilon)


def _spent(row: Row, name: str) -> float:
    epsilon = row.get("epsilon")
    value = epsilon.get(name, 0.0) if isinstance(epsilon, dict) else 0.0
    return value if isinstance(value, int | float) else math.inf


def _names(row: Row) -> list[object]:
    replied = row.get("replied")
    return replied if isinstance(replied, list) else []


def _megabytes(row: Row) -> float:
    return _whole(row.get("numbers")) * 4 / 1e6


def _minutes_left(folder: Path, left: int) -> float:
    """From the time between the newest checkpoints. How long a round took is written into no file that is released."""
    times = sorted(path.stat().st_mtime for path in (folder / "checkpoints").glob("*.safetensors"))
    return left * (times[-1] - times[0]) / (len(times) - 1) / 60 if len(times) > 1 else math.nan


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _finite(value: object) -> object:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if math.isnan(value):
            return None
        case float() if not math.isfinite(value):
            return "infinite"
        case _:
            return value
