"""The frontier for a person: a table of lines, and a picture of gain against epsilon and against the noise a plan predicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from braing3n_core import figures, metrics
from simulations.frontier.points import MEASURES, gains

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")               # after Okabe and Ito
_MARKERS = "osD^vP"


def told(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each point, its repeats together: what each measure came to, and how much of the gain, with intervals."""
    shares = {id(row): share for row, share in gains(rows)}
    names = "".join(f"{name:>22}" for name in MEASURES)
    yield f"{'mechanism':<12}{'epsilon':>9}{'sites':>6}{'patients':>9}{'runs':>5}{'noise/clip':>13}{names}"
    change = ""
    for _, group in _points(rows):
        first = group[0]
        if first.get("change", "") != change:
            change = first["change"]
            yield f"with {change}"
        loud = " ".join(f"{stage['noise_over_clip']:.2g}" for stage in first["stages"].values())
        where = f"{first['sites']:>6}{first['patients']:>9}{len(group):>5}"
        line = f"{first['mechanism']:<12}{first['epsilon']:>9}{where}{loud:>13}"
        for name in MEASURES:
            found = [row["scores"][name] for row in group if name in row["scores"]]
            known = [shares[id(row)][name] for row in group if name in shares.get(id(row), {})]
            line += f"{fmean(found):>9.3f}{_percent(known):>13}" if found else f"{'-':>9}{'':13}"
        yield line
    prior = rows[0]["prior"] if rows else {}
    yield f"{'prior only':<54}" + "".join(f"{prior[name]:>9.3f}{'':13}" for name in MEASURES if name in prior)
    attacks = [audit for row in rows for audit in row.get("audit", {}).values()]
    refuted = sum(audit["refuted"] for audit in attacks)
    yield f"{refuted} of {len(attacks)} attacks on steps at their own epsilon refute the claim"
    yield "%: part of what training without privacy gains over the prior; +- 95 % interval of the mean over runs"


def picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG: for each measure with a gain, what part the recipe reaches against epsilon, 95 % intervals, a line a mechanism."""
    shown = [(row, share) for row, share in gains(rows) if row["epsilon"] != "infinite" and not row.get("change")]
    names = [name for name in MEASURES if any(name in share for _, share in shown)]
    figure = figures.blank(4.2 * max(1, len(names)), 3.6, 150)
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        axes.axhline(1, color="#1c2330", lw=1, ls=(0, (5, 4)))
        axes.axhline(0, color="#c9ced6", lw=1)
        for i, (label, curve) in enumerate(_curves(shown, name).items()):
            epsilons = sorted(curve)
            middle = [fmean(curve[e]) for e in epsilons]
            spread = [metrics.repeats_interval(curve[e]) or 0.0 for e in epsilons]
            axes.errorbar(epsilons, middle, spread, color=_COLOURS[i % 6], marker=_MARKERS[i % 6], lw=2, capsize=3, label=label)
        axes.set_ylim(-0.5, 1.6)                             # an interval of two runs may reach anywhere
        axes.set_xscale("log")
        axes.set_xticks(sorted({row["epsilon"] for row, _ in shown}))
        axes.get_xaxis().set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(title=name, xlabel="epsilon", ylabel="part of the gain without privacy" if not place else None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#c9ced6", lw=0.6)
    if names:
        figure.axes[0].legend(frameon=False, fontsize=9)
    return figures.png(figure)


def _percent(shares: Sequence[float]) -> str:
    """Mean share with its interval, if there are repeats; nothing where there is no share."""
    if not shares:
        return ""
    half = metrics.repeats_interval(shares)
    return f"{100 * fmean(shares):.0f}" + ("" if half is None else f"+-{100 * half:.0f}") + " %"


def _curves(shown: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]], name: str) -> dict[str, dict[float, list[float]]]:
    """'local, 3 x 300' -> epsilon -> the shares of its repeats."""
    found: dict[str, dict[float, list[float]]] = {}
    for row, share in shown:
        if name in share:
            label = f"{row['mechanism']}, {row['sites']} x {row['patients']}"
            found.setdefault(label, {}).setdefault(row["epsilon"], []).append(share[name])
    return found


def _points(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[Any, ...], list[Mapping[str, Any]]]]:
    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        epsilon = float("inf") if row["epsilon"] == "infinite" else row["epsilon"]
        return row.get("change", ""), row["sites"], row["patients"], row["mechanism"], epsilon

    for point, group in itertools.groupby(sorted(rows, key=key), key=key):
        yield point, list(group)
