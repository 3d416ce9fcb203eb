"""What the report draws with plain boxes: where each image lies among the others, and what each site spent on what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from privacy.accountant import epsilon
from privacy.events import Unbounded
from server.release.anatomy import Findings
from server.release.inputs import SitePrivacy

_ROWS = 5                                                    # dots at one value lie on so many lines
_MEASURES = {
    "ventricles_ml": ("ventricles", "ml"),
    "brain_ml": ("brain", "ml"),
    "grey_share": ("grey matter", "part of the brain"),
    "white_share": ("white matter", "part of the brain"),
}


@dataclass(frozen=True)
class Dot:
    """One image on a strip; a click opens it."""

    person: int
    left: float                                              # percent of the strip
    row: int
    words: str


@dataclass(frozen=True)
class Strip:
    """One measure over all images."""

    name: str
    unit: str
    low: str
    high: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Segment:
    """What one stage added to a site's epsilon, as a part of what was agreed."""

    stage: str
    epsilon: float
    percent: float


@dataclass(frozen=True)
class Bar:
    """One site's ledger: stages in the order in which they were paid."""

    site: str
    spent: float
    agreed: float
    segments: tuple[Segment, ...]


def strips(findings: Sequence[Findings]) -> list[Strip]:
    """One strip per measure that was measured on at least two images."""
    found = []
    for field, (name, unit) in _MEASURES.items():
        values = [getattr(one, field) for one in findings]
        known = [value for value in values if math.isfinite(value)]
        if len(known) >= 2 and max(known) > min(known):
            low, high = min(known), max(known)
            dots = tuple(
                Dot(i, 100 * (value - low) / (high - low), i % _ROWS, f"image {i + 1}: {name} {_short(value)} {unit}")
                for i, value in enumerate(values)
                if math.isfinite(value)
            )
            found.append(Strip(name, unit, _short(low), _short(high), dots))
    return found


def bars(privacy: Sequence[SitePrivacy]) -> list[Bar]:
    """Each site's epsilon, stage by stage: what the total grew by as stages were paid. Sites without events are left out."""
    return [Bar(row.site, row.epsilon, row.agreed, _segments(row)) for row in privacy if row.events and _bounded(row)]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bounded(row: SitePrivacy) -> bool:
    return math.isfinite(row.epsilon) and 0 < row.agreed < math.inf


def _segments(row: SitePrivacy) -> tuple[Segment, ...]:
    paid = [event for event in row.events if not isinstance(event, Unbounded)]
    stages = list(dict.fromkeys(event.stage for event in paid))
    totals = [epsilon([e for e in paid if e.stage in stages[: i + 1]], row.delta) for i in range(len(stages))]
    before = [0.0, *totals[:-1]]
    return tuple(
        Segment(stage, total - earlier, 100 * (total - earlier) / row.agreed)
        for stage, total, earlier in zip(stages, totals, before, strict=True)
    )
