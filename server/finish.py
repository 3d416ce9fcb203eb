"""From the last round to the release folder, with what the sites themselves said they spent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from braing3n_core.charges import charges
from braing3n_core.console import heartbeat
from braing3n_core.fit import readings
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from privacy.egress import FIT_STAGE
from privacy.events import Event
from server import fit
from server.conduct import Say
from server.lost_sums import LostSum, lost_sums
from server.release.edition import Edition
from server.release.inputs import SitePrivacy, site_privacy
from server.release.publish import Extras, Reported, publish

Row = Mapping[str, object]


def publish_release(plan: TrainingPlan, model: Brain, spent: Mapping[str, float], out: Path, say: Say) -> None:
    """Make <out>/release, unless it follows a census, which sites tell by a command of their own.

    Quality is not in it: a server has no patients to measure it on.
    """
    if plan.release.follow == "census":
        say("the release follows the census: have each run braing3n-site census, then braing3n-admin release generate --census")
        return
    rounds = read_rounds(out)
    lost = lost_sums(out / "checkpoints")
    privacy = [_stated(plan, site, epsilon, rounds, lost) for site, epsilon in sorted(spent.items())]
    say(f"generating {sum(cell.count * cell.visits for cell in plan.release.cells)} synthetic volumes and two sweeps")
    with heartbeat(say, "making the release"):
        extras = Extras(rounds=rounds, fits=fit.read(out), provenance=provenance())
        folder = publish(plan, model, out, Reported(privacy), Edition.today(plan.study), extras=extras, replace=True)
    say(f"release: {folder}")


def read_rounds(out: Path) -> list[Row]:
    """The rows of rounds.jsonl, a line cut short by a crash left out."""
    path = out / "rounds.jsonl"
    rows = map(_row, path.read_text(encoding="utf-8").splitlines() if path.exists() else [])
    return [row for row in rows if row]


def _row(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def provenance() -> dict[str, str]:
    """What made the release."""
    return {name: version(name) for name in ("braing3n", "flwr", "opacus", "torch")}


def _stated(plan: TrainingPlan, site: str, epsilon: float, rounds: list[Row], lost: Sequence[LostSum]) -> SitePrivacy:
    """A site's row: epsilon as the site said it, the steps as the server saw them in what it replied to or paid for.

    Numbers on a stage's fit count as told, all of them: one whose reply was lost, the last perhaps, was paid for too.
    """
    row = site_privacy(site, _seen(plan, site, rounds, lost), plan.privacy.epsilon, plan.privacy.delta)
    return replace(row, epsilon=max(epsilon, row.epsilon) if readings(plan) else epsilon)


def _seen(plan: TrainingPlan, site: str, rounds: list[Row], lost: Sequence[LostSum]) -> list[Event]:
    """A secure sum that nobody could open cost what one that was opened does."""
    replied = [row["stage"] for row in rounds if site in _names(row)] + [one.stage for one in lost if site in one.paid]
    replied += [FIT_STAGE] * len(readings(plan))
    sizes = [len(values) for values in initial_values(load_prior(plan), plan)] if plan.privacy.secure_sum else []
    return [cost for name, cost in charges(plan, sizes).items() for _ in range(replied.count(name))]


def _names(row: Row) -> list[object]:
    replied = row.get("replied")
    return replied if isinstance(replied, list) else []
