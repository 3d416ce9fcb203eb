"""The charts of a report, as PNG for a light and for a dark page. Figures are objects; matplotlib keeps no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from braing3n_core.errors import DataRefused
from braing3n_core.figures import blank, png
from braing3n_core.metrics import correlation
from server.release.calibrate import BINS, Reference
from server.release.inputs import Control, SitePrivacy

_MARKERS = "osD^vPX"
_DPI = 170


@dataclass(frozen=True)
class Ink:
    """Colours of one page."""

    text: str
    faint: str
    lines: tuple[str, ...]                                   # one per site


# After Okabe and Ito, so that colour-blind readers tell them apart; brighter ones for the dark page.
LIGHT = Ink("#1c2330", "#c9ced6", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f"))
DARK = Ink("#e3e8ef", "#3a4250", ("#56b4e9", "#ff9a4d", "#2fcf9f", "#e6a0c8", "#4a90d9", "#f0e442", "#b0b0b0"))


def budget_png(rounds: Sequence[Mapping[str, object]], privacy: Sequence[SitePrivacy], ink: Ink) -> bytes | None:
    """Epsilon each site had spent after each round, with what was agreed; None if no round says what it cost."""
    rows = [row for row in rounds if isinstance(row.get("epsilon"), Mapping)]
    curves = {site: points for site in _sites(rows) if (points := _curve(rows, site))}
    if not curves:
        return None
    figure, axes = _blank(ink, 7.2, 3.7)
    for i, (site, points) in enumerate(curves.items()):
        # Sites with equal settings spend equally, so their curves lie on each other: the later ones are drawn thinner.
        width = 1.8 + 2.2 * (len(curves) - 1 - i)
        axes.plot(
            *zip(*points, strict=True), color=ink.lines[i % len(ink.lines)], lw=width, marker=_MARKERS[i % len(_MARKERS)],
            ms=width + 3, label=site, solid_capstyle="round",
        )
    for agreed in sorted({row.agreed for row in privacy if math.isfinite(row.agreed)}):
        axes.axhline(agreed, color=ink.text, lw=1.2, ls=(0, (5, 4)))
        axes.annotate(f"agreed {agreed:g}", (1, agreed), xycoords=("axes fraction", "data"), xytext=(-3, 3),
                      textcoords="offset points", ha="right", va="bottom", color=ink.text, fontsize=9)
    _stages(axes, [str(row.get("stage", "")) for row in rows], ink)
    axes.set(xlabel="round", ylabel="epsilon spent so far", xlim=(0.5, len(rows) + 0.5))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, 0.88), labelcolor=ink.text)
    legend.set_zorder(5)
    return png(figure)


def control_png(control: Control, ink: Ink) -> bytes | None:
    """Requested against measured, the line where they are equal, and r; None with fewer than three people."""
    if len(control.requested) < 3:
        return None
    figure, axes = _blank(ink, 4.6, 4.2)
    both = (*control.requested, *control.measured)
    margin = 0.06 * (max(both) - min(both)) or 1.0
    limits = (min(both) - margin, max(both) + margin)
    axes.plot(limits, limits, color=ink.text, lw=1, ls=(0, (5, 4)), zorder=1, label="measured = requested")
    axes.legend(frameon=False, fontsize=9, loc="lower right", labelcolor=ink.text)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.scatter(control.requested, control.measured, s=34, color=ink.lines[0], alpha=0.85, edgecolors="none", zorder=3)
    axes.set(
        xlim=limits, ylim=limits, aspect="equal",
        xlabel=f"requested {control.name} ({control.unit})", ylabel=f"measured {control.name} ({control.unit})",
    )
    r = control_r(control)
    axes.annotate(f"r = {r:.2f}\nn = {len(control.requested)}" if r is not None else f"n = {len(control.requested)}",
                  (0, 1), xycoords="axes fraction", xytext=(10, -10), textcoords="offset points", va="top",
                  color=ink.text, fontsize=11, fontweight="bold")
    return png(figure)


def copies_png(reference: Reference, ink: Ink) -> bytes:
    """How alike public people are, and copies planted among them, beside the threshold."""
    figure, axes = _blank(ink, 6.4, 3.4)
    middle = [(low + high) / 2 for low, high in pairwise(BINS)]
    for i, (label, counts) in enumerate({"two different people": reference.pairs, **_named(reference)}.items()):
        share = [count / max(1, sum(counts)) for count in counts]
        axes.step(middle, share, where="mid", color=ink.lines[i], lw=2 if i else 2.8, label=label)
        axes.fill_between(middle, share, step="mid", color=ink.lines[i], alpha=0.12)
    axes.axvline(reference.threshold, color=ink.text, lw=1.2, ls=(0, (5, 4)))
    axes.annotate("threshold", (reference.threshold, 1), xycoords=("data", "axes fraction"), xytext=(-4, -4),
                  textcoords="offset points", ha="right", va="top", color=ink.text, fontsize=9)
    axes.set(xlabel="similarity", ylabel="part of the pairs", xlim=(BINS[0], BINS[-1]), ylim=(0, None))
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=ink.text)
    return png(figure)


def _named(reference: Reference) -> dict[str, tuple[int, ...]]:
    return {f"a copy, {kind}": reference.copies[kind] for kind in ("noisy", "deformed") if kind in reference.copies}


def control_r(control: Control) -> float | None:
    """Pearson's r of requested and measured; None where it has no meaning."""
    try:
        return correlation(control.requested, control.measured)
    except DataRefused:
        return None


def _sites(rows: Sequence[Mapping[str, object]]) -> list[str]:
    return sorted({str(site) for row in rows for site in _spent(row)})


def _spent(row: Mapping[str, object]) -> Mapping[str, object]:
    spent = row.get("epsilon")
    return spent if isinstance(spent, Mapping) else {}


def _curve(rows: Sequence[Mapping[str, object]], site: str) -> list[tuple[int, float]]:
    """(round counted over all stages, epsilon) wherever the site said a finite number."""
    points = ((number, _spent(row).get(site)) for number, row in enumerate(rows, start=1))
    return [(number, float(value)) for number, value in points if isinstance(value, int | float) and math.isfinite(value)]


def _stages(axes: Axes, stages: Sequence[str], ink: Ink) -> None:
    """A line between stages and each stage's name above its rounds."""
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(stages)], strict=True):
        if start:
            axes.axvline(start + 0.5, color=ink.faint, lw=1.4, zorder=0.5)
        axes.annotate(stages[start], ((start + end + 1) / 2, 1), xycoords=("data", "axes fraction"), xytext=(0, 5),
                      textcoords="offset points", ha="center", va="bottom", color=ink.text, fontsize=10)


def _blank(ink: Ink, width: float, height: float) -> tuple[Figure, Axes]:
    figure = blank(width, height, _DPI)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=ink.text, labelsize=9)
    axes.xaxis.label.set_color(ink.text)
    axes.yaxis.label.set_color(ink.text)
    axes.grid(color=ink.faint, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ink.faint)
    return figure, axes
