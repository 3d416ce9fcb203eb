"""From the frontier's rows, one a run, to the reference that `braing3n-admin plan advice` reads: one row a point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, get_args

from braing3n_core.errors import DataRefused
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from server.reference import Baseline, Measure, Point, Reference
from simulations.frontier.points import gains

_ALSO = ("group:place", "group:conditions", "group:ends", "lora:1", "lora:2", "lora:4", "lora:8", "lora:16", "lora:32", "all")


def distilled(base: TrainingPlan, rows: Sequence[Mapping[str, Any]]) -> Reference:
    """The reference of `base`'s last stage but `spread`. Raises DataRefused if no row has one without privacy beside it."""
    stage = [stage for stage in base.stages if stage.name != "spread"][-1]
    points = tuple(_points(base, stage, rows))
    if not points:
        raise DataRefused("no private row has one without privacy beside it; add --epsilon inf and run again")
    weights = {row["stages"][stage.name]["weights"] for row in rows if not row.get("change")}
    if len(weights) != 1:
        raise DataRefused("the rows trained different numbers of weights; make a reference of one recipe")
    return Reference(
        recipe=base.study, stage=stage, weights=weights.pop(), sizes=sizes(base, stage),
        baselines=tuple(_baselines(rows)), points=points,
    )  # fmt: skip


def sizes(base: TrainingPlan, stage: Stage) -> dict[str, int]:
    """What that stage could train instead -> how many numbers, with the shipped prior."""
    found, model = {}, load_prior(base)
    for what in (stage.trainable, *_ALSO):
        alone = stage.model_copy(update={"trainable": what, "learns": "flow", "share": 1.0})
        (values,) = initial_values(model, base.but(stages=(alone,)))
        found[what] = len(values)
    return found


def _points(base: TrainingPlan, stage: Stage, rows: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    groups: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Mapping[str, float]]]] = {}
    for row, shares in gains(rows):
        if row["epsilon"] == "infinite" or row.get("change"):                                  # pooled, or another recipe
            continue
        key = row["sites"], row["patients"], row["mechanism"], row["epsilon"]
        groups.setdefault(key, []).append((row, shares))
    for (sites, patients, mechanism, epsilon), runs in sorted(groups.items()):
        told = [name for name in get_args(Measure) if all(name in shares for _, shares in runs)]
        yield Point(
            mechanism=mechanism, epsilon=epsilon, delta=base.privacy.delta, sites=sites, patients=patients,
            noise_over_clip=runs[0][0]["stages"][stage.name]["noise_over_clip"],
            plans=tuple(row["plan"] for row, _ in runs), seeds=tuple(row["seed"] for row, _ in runs),
            shares={name: tuple(shares[name] for _, shares in runs) for name in told},
        )  # fmt: skip


def _baselines(rows: Sequence[Mapping[str, Any]]) -> Iterator[Baseline]:
    free: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["mechanism"] == "non-private" and not row.get("change"):
            free.setdefault((row["sites"], row["patients"]), []).append(row)
    for (sites, patients), runs in sorted(free.items()):
        names = [name for name in get_args(Measure) if all(name in row["prior"] and name in row["scores"] for row in runs)]
        prior, best = ({name: fmean(row[end][name] for row in runs) for name in names} for end in ("prior", "scores"))
        yield Baseline(sites=sites, patients=patients, prior=prior, without_privacy=best)
