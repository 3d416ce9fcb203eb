"""The numbers of a finished run: as JSON for programs, as a few lines for a person. Both say the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from braing3n_core.plan import TrainingPlan
from privacy.accountant import epsilon_alone
from server.lost_sums import LostSum, in_words
from server.release.inputs import Quality, SitePrivacy
from server.release.publish import REPORT
from simulations.phantom_consortium import PUBLIC_KEY

_HEADLINES = 3                                               # quality numbers that are printed; the report has them all


def written(
    plan: TrainingPlan, release: Path, privacy: Sequence[SitePrivacy], lost: Sequence[LostSum], rows: Sequence[Quality],
    seconds: Mapping[str, float],
) -> bytes:
    """summary.json: every number with its unit and what it is to be held against."""
    summary = {
        "study": plan.study,
        "plan": plan.digest,
        "release": str(release),
        "report": str(release / REPORT),
        "key": str(key) if (key := release.parent / PUBLIC_KEY).exists() else None,
        "privacy": [
            {
                "site": row.site, "epsilon": _json(row.epsilon), "agreed": _json(row.agreed), "delta": row.delta,
                "unit": "epsilon of one patient with all scans, over all rounds and stages", **_alone(plan, row),
            }
            for row in privacy
        ],
        "lost_sums": list(in_words(plan, lost)),
        "quality": [{key: _json(value) for key, value in asdict(row).items()} for row in rows],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }  # fmt: skip
    return (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode()


def told(summary: Mapping[str, Any]) -> list[str]:
    """The same for a person: where things are, what was spent, three numbers on quality."""
    lines = [f"release   {summary['release']}", f"report    {summary['report']}"]
    if summary["key"]:
        lines += [f"verify    braing3n-admin verify {summary['release']} --key {summary['key']}"]
    lines += ["", "privacy spent, per patient"]
    for row in summary["privacy"]:
        spent = f"epsilon {_short(row['epsilon'])} of {_short(row['agreed'])} agreed, delta {row['delta']:g}"
        if "fallback" in row:
            spent += f"; against server and all other sites {_short(row['fallback'])} of {_short(row['fallback_agreed'])}"
        lines.append(f"  {row['site']:<12} {spent}")
    lines += [f"  {line}" for line in summary["lost_sums"]]
    lines += ["", f"{'quality':<46}{'prior':>9}{'private':>9}{'non-priv.':>10}   held against"]
    for row in summary["quality"][:_HEADLINES]:
        values = f"{_short(row['prior']):>9}{_short(row['private']):>9}{_short(row['non_private']):>10}"
        lines.append(f"  {row['name'][:43]:<44}{values}   {row['baseline_name']}: {_short(row['baseline'])} {row['unit']}")
    return lines


def _alone(plan: TrainingPlan, row: SitePrivacy) -> dict[str, object]:
    """What secure sums say beside: epsilon against the server and all other sites together."""
    if plan.privacy.secure_sum is None:
        return {}
    alone = epsilon_alone(row.events, row.delta)
    return {"fallback": _json(alone), "fallback_agreed": plan.privacy.secure_sum.fallback_epsilon}


def _json(value: object) -> object:
    """Infinity and NaN, which JSON does not know, in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "infinite" if value > 0 else "not a number"
    return value


def _short(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float | int) else str(value)
