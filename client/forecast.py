"""`braing3n-site forecast`: one patient's follow-up as the public prior expects it, from a scan and the years to come.

Nothing is sent anywhere. What is written is patient data without any protection, so it is readable by its owner alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n_core import figures
from braing3n_core.data.preprocess import onto_template
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.forecast import drawn_change, expected_change, later, refuse_beyond
from braing3n_core.generate import noise_of
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.morphometry import measures
from braing3n_core.plan import Categorical, Continuous
from braing3n_core.scratch import scratch
from client.embed import Registration

DRAWS = 16                                                   # courses of events that an interval is read from
_STEPS = 12
_SEED = 1
_TAIL = 0.1                                                  # of the draws on either side of the interval


@dataclass(frozen=True)
class Forecast:
    """One person now and later. Volumes are (1, D, H, W) on the template's grid; measured variables in ml."""

    years: float
    now: Tensor
    then: Tensor
    before: dict[str, float]
    after: dict[str, float]
    low: dict[str, float]                                    # four of five courses of events lie between
    high: dict[str, float]

    def told(self) -> list[str]:
        """For a person."""
        lines = [f"{'ml':<22}{'now':>8}{f'in {self.years:g} years':>14}   four of five courses"]
        for name, value in self.before.items():
            span = f"{self.low[name]:.1f} to {self.high[name]:.1f}"
            lines.append(f"{name:<22}{value:>8.1f}{self.after[name]:>14.1f}   {span}")
        return lines


def person_of(model: Brain, words: Sequence[str]) -> dict[str, Condition]:
    """`variable=VALUE` words as conditions of the scan. Raises UsageError for what the model does not know."""
    known = {variable.name: variable for variable in model.variables}
    found: dict[str, Condition] = {"modality": "T1w"}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise UsageError(f"--is {word}: the model knows {', '.join(known)}")
        found[name] = _value(known[name], value)
    return found


def _value(variable: Continuous | Categorical, text: str) -> Condition:
    if isinstance(variable, Categorical):
        if text not in variable.levels:
            raise UsageError(f"--is {variable.name}={text}: choose from {', '.join(variable.levels)}")
        return text
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not variable.low <= number <= variable.high:
        raise UsageError(f"--is {variable.name}={text}: write {variable.low:g} to {variable.high:g} {variable.unit}")
    return number


def foresee(model: Brain, scan: Tensor, person: Mapping[str, Condition], years: float) -> Forecast:
    """What is expected of one scan (1, D, H, W) after so many years, and how far courses of events lie apart.

    What the model's variables measure on the scan, such as ventricles, is a condition too, and is what is told of both:
    how well other measures are foreseen is not known. Raises UsageError for years beyond what the trajectory was trained for.
    """
    gap = torch.tensor([years])
    refuse_beyond(gap)
    now = scan[None]
    names = [variable.name for variable in model.variables if variable.source == "measured"]

    def told(volumes: Tensor) -> dict[str, np.ndarray]:
        found = measures(volumes, model.preset)
        return {name: found[f"{name}_ml"] for name in names}

    before = {name: float(row[0]) for name, row in told(now).items()}
    codes = model.codes([{**before, **person}])
    with torch.no_grad():
        first = model.encode(now)
    then = later(model, now, first, expected_change(model, first, codes, gap))
    noise, again = noise_of(model, _SEED, DRAWS), first.expand(DRAWS, -1, -1)
    courses = drawn_change(model, again, codes.expand(DRAWS, -1), gap.expand(DRAWS), noise, steps=_STEPS)
    many = told(later(model, now, first, courses))
    return Forecast(
        years,
        now[0],
        then[0],
        before,
        {name: float(row[0]) for name, row in told(then).items()},
        {name: float(np.quantile(row, _TAIL)) for name, row in many.items()},
        {name: float(np.quantile(row, 1 - _TAIL)) for name, row in many.items()},
    )


def write_forecast(
    scan: Path, out: Path, model: Brain, words: Sequence[str], years: float, registration: Registration
) -> Forecast:
    """Forecast the file and fill the folder `out`, its owner's alone: both volumes, a picture and the numbers.

    Raises DataRefused if the scan cannot be used, UsageError for a wrong option or a folder that is there already.
    """
    if out.exists():
        raise UsageError(f"{out.name} is there already; name another folder for the forecast")
    if not out.parent.is_dir():
        raise UsageError(f"no folder {out.parent} to put {out.name} in; make it first")
    person = person_of(model, words)
    found = foresee(model, onto_template(scan, model.preset, registration), person, years)
    with scratch(".braing3n-forecast-", out.parent) as work:
        whole = work / "whole"
        whole.mkdir(mode=0o700)
        affine = template(model.preset).affine
        for name, volume in (("now", found.now), ("forecast", found.then)):
            write_volume(whole / f"{name}.nii.gz", volume[0].numpy(), affine, descrip=f"braing3n {name}, not for diagnosis")
        write_atomically(whole / "forecast.png", picture(found))
        write_atomically(whole / "forecast.json", (json.dumps(_numbers(found, person), indent=1) + "\n").encode())
        whole.rename(out)
    return found


def _numbers(found: Forecast, person: Mapping[str, Condition]) -> dict[str, object]:
    return {
        "years": found.years, "conditions": dict(person), "now_ml": found.before, "forecast_ml": found.after,
        "four_of_five_from_ml": found.low, "four_of_five_to_ml": found.high, "courses": DRAWS,
        "note": "what the public prior expects, learned from phantoms; a rehearsal, not for diagnosis",
    }  # fmt: skip


def picture(found: Forecast) -> bytes:
    """PNG: three planes of the scan, of the forecast, and of what changes between them."""
    now, then = found.now[0], found.then[0]
    return figures.planes([("now", now), (f"expected in {found.years:g} years", then)], [("change", then - now)])
