"""What was measured once, on phantoms, for every consortium that asks: the reference frontier behind `plan advice`.

`reference.json` is made by `braing3n-sim frontier --reference` from simulations/recipes/frontier.json, one row a point.
Points are told apart by how loud their noise was, since that, and not epsilon, decides what training can learn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.optimize import isotonic_regression

from braing3n_core.frozen import Frozen
from braing3n_core.plan import Stage

FILE = "reference.json"
Measure = Literal["distance", "frechet", "ageing", "age"]
_ALIKE = 2.0                                                 # noises within this factor are told as one neighbourhood


class Point(Frozen):
    """One budget of one consortium, its runs together; a share is of the gain that training without privacy has."""

    mechanism: Literal["local", "secure-sum"]
    epsilon: PositiveFloat
    delta: PositiveFloat
    sites: PositiveInt
    patients: PositiveInt                                    # of each site
    noise_over_clip: PositiveFloat                           # of what is learned, all sites together
    plans: tuple[str, ...]                                   # digests, one for each run
    seeds: tuple[int, ...]
    shares: dict[Measure, tuple[float, ...]]                 # one for each run


class Baseline(Frozen):
    """The two ends that shares lie between, means over the runs of one consortium."""

    sites: PositiveInt
    patients: PositiveInt
    prior: dict[Measure, float]
    without_privacy: dict[Measure, float]


class Reference(Frozen):
    """The file. `stage` is what every point learned, `weights` how many numbers that is."""

    recipe: str
    stage: Stage
    weights: PositiveInt
    sizes: dict[str, PositiveInt]                            # what a stage may train -> its numbers, with the shipped prior
    baselines: Annotated[tuple[Baseline, ...], Field(min_length=1)]
    points: Annotated[tuple[Point, ...], Field(min_length=1)]

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> Reference:
        """The one in this package."""
        return cls.model_validate_json(files("server").joinpath(FILE).read_text(encoding="utf-8"))

    @property
    def loudness(self) -> tuple[float, float]:
        """The least and the most noise over clip of any point."""
        noises = [point.noise_over_clip for point in self.points]
        return min(noises), max(noises)

    @property
    def cohort(self) -> tuple[int, int]:
        """The fewest and the most patients of all sites together."""
        totals = [point.sites * point.patients for point in self.points]
        return min(totals), max(totals)

    @property
    def sites(self) -> list[int]:
        """Numbers of sites that were measured, ascending."""
        return sorted({point.sites for point in self.points})

    @property
    def measures(self) -> list[Measure]:
        """Those of which some point reaches a share: training without privacy improves them."""
        return [name for name in get_args(Measure) if any(name in point.shares for point in self.points)]

    def nearest(self, patients: int) -> Baseline:
        """The two ends of the consortium that comes nearest to so many patients in all."""
        return min(self.baselines, key=lambda one: abs(math.log(one.sites * one.patients / patients)))

    def expected(self, measure: Measure, noise: float) -> Expected:
        """What a run with so much noise should reach. Never better for more noise; beyond the points, that of the nearest."""
        known = sorted((point for point in self.points if measure in point.shares), key=lambda point: point.noise_over_clip)
        noises = np.log([point.noise_over_clip for point in known])
        runs = [_capped(point.shares[measure]) for point in known]
        fit = isotonic_regression([float(np.mean(run)) for run in runs], weights=[len(run) for run in runs], increasing=False).x
        apart = [abs(math.log(noise) - float(one)) for one in noises]
        reach = max(math.log(_ALIKE), min(apart))
        near = [share for run, far in zip(runs, apart, strict=True) if far <= reach for share in run]
        return Expected(float(np.interp(math.log(noise), noises, fit)), min(near), max(near), len(near))


@dataclass(frozen=True)
class Expected:
    """A share of the gain without privacy, and what single runs with noise like it reached."""

    share: float
    low: float
    high: float
    runs: int


def _capped(shares: Sequence[float]) -> list[float]:
    """More than all of the gain counts as all: noise in the weights widens the generated set, which some measures reward."""
    return [min(share, 1.0) for share in shares]


def as_bytes(reference: Reference) -> bytes:
    """The file's content."""
    return (json.dumps(reference.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()
