"""From a trained generator to a release folder: draw the cohort, generate, sweep, measure, write; refuse what was overspent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from braing3n_core.data.template import template
from braing3n_core.errors import GateBlocked
from braing3n_core.generate import generate, noise_of
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.morphometry import measure
from braing3n_core.plan import Categorical, Continuous, TrainingPlan
from server.release.cohort import Person, draw
from server.release.dataset import refuse_to_overwrite, write_dataset
from server.release.inputs import Control, Quality, ReleaseInputs, SitePrivacy, Sweep
from server.release.mosaic import hero_png
from server.release.report import describe, render

Progress = Callable[[str, int, int], None]                   # what, done, total
RELEASE = "release"                                          # the folder's name inside a run
PICTURE = "cohort.png"                                       # beside it: the first people of the cohort at a glance
SWEPT = ("age", "ventricles")
_STEPS = 7                                                   # pictures of one sweep
_VENTRICLES = "ventricles"


def publish(
    plan: TrainingPlan,
    model: Brain,
    out: Path,
    *,
    quality: Sequence[Quality] = (),
    privacy: Sequence[SitePrivacy] = (),
    rounds: Sequence[Mapping[str, object]] = (),
    provenance: Mapping[str, str] | None = None,
    control: tuple[Sequence[float], Sequence[float]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Make `out`/release and return it; the plan, the model and the arguments decide everything in it.

    A picture of the first people, cohort.png, is put beside it.

    `control` is (requested, measured) ventricles in ml; without it, those of the cohort are taken. `ranges` says how far
    a sweep goes; without it, as far as the plan's cells ask. Raises GateBlocked if a site spent more than was agreed or
    nobody said what was spent, and UsageError if there is a release already and `replace` is not asked for.
    """
    refuse_overspent(plan, privacy)
    folder = out / RELEASE
    refuse_to_overwrite(folder, replace)
    maker = _Maker(plan, model.eval(), progress)
    people = draw(plan.release, plan.variables)
    volumes = maker.volumes("generating", [person.conditions for person in people])
    measured = maker.ventricles(volumes)
    sweeps = {name: maker.sweep(name, (ranges or {}).get(name)) for name in SWEPT}
    page = render(
        ReleaseInputs(
            plan=plan,
            people=people,
            volumes=volumes,
            age_sweep=sweeps["age"],
            ventricle_sweep=sweeps[_VENTRICLES],
            control=_control(people, measured, control),
            panel=quality,
            privacy=privacy,
            rounds=rounds,
            provenance=provenance or {},
        )
    )
    documents = {"report.html": page.encode(), "privacy.json": privacy_json(plan, privacy)}
    hero_png(volumes, out / PICTURE, plan.model)
    return write_dataset(
        folder, plan, people, volumes, measured={_VENTRICLES: measured}, documents=documents, replace=replace
    )


def refuse_overspent(plan: TrainingPlan, privacy: Sequence[SitePrivacy]) -> None:
    """Raise GateBlocked unless every reporting site stayed within what was agreed, and at least one reported.

    A plan without privacy is a rehearsal by construction, and its report says that nothing is promised.
    """
    if plan.privacy.mechanism == "non-private":
        return
    if not privacy:
        raise GateBlocked("no site said what it spent, so nothing may be promised or released; give the sites' ledgers")
    for row in privacy:
        if not row.epsilon <= row.agreed:
            raise GateBlocked(
                f"{row.site} spent epsilon {row.epsilon:.3g} of {row.agreed:.3g} agreed; nothing was released, "
                "ask its data steward"
            )


def privacy_json(plan: TrainingPlan, privacy: Sequence[SitePrivacy]) -> bytes:
    """The privacy table for programs. Infinity, which JSON does not know, is written as "infinite"."""
    table = {
        "study": plan.study,
        "plan": plan.digest,
        "mechanism": plan.privacy.mechanism,
        "unit": "one patient with all scans",
        "neighbours": "add or remove one patient",
        "accountant": "PRV over all events of a site's ledger; epsilon_rdp is a looser bound",
        "sites": [_in_json(asdict(row)) for row in sorted(privacy, key=lambda row: row.site)],
    }
    return (json.dumps(table, indent=2, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class _Maker:
    """A plan's sampler settings around one model."""

    plan: TrainingPlan
    model: Brain
    progress: Progress | None

    def volumes(self, what: str, rows: Sequence[Mapping[str, Condition]], noise: Tensor | None = None) -> Tensor:
        """(n, 1, D, H, W), one volume per row of conditions."""
        release, progress = self.plan.release, self.progress
        say = None if progress is None else lambda done, total: progress(what, done, total)
        return generate(
            self.model, rows, release.seed, steps=release.steps, guidance=release.weights, noise=noise, progress=say
        )

    def ventricles(self, volumes: Tensor) -> list[float]:
        """Ventricles of each volume, ml."""
        public, spacing = template(self.plan.model), self.plan.model.spacing_mm
        return [float(measure(volume, public, spacing).ventricles_ml) for volume in volumes]

    def sweep(self, name: str, limits: tuple[float, float] | None) -> Sweep | None:
        """One condition in even steps over the noise of the cohort's first person; None if the plan lacks it."""
        swept = next((v for v in self.plan.variables if v.name == name and isinstance(v, Continuous)), None)
        if not isinstance(swept, Continuous):
            return None
        low, high = limits or _asked(self.plan, swept)
        values = tuple(round(float(value), 1) for value in np.linspace(low, high, _STEPS))
        held = _held(self.plan, name)
        noise = noise_of(self.model, self.plan.release.seed, 1).expand(_STEPS, -1, -1)
        volumes = self.volumes(f"{name} sweep", [held | {name: value} for value in values], noise)
        words = f"the noise of image 1; {describe(held, self.plan)}; everything else left free"
        return Sweep(name, swept.unit, values, volumes, tuple(self.ventricles(volumes)), words)


def _held(plan: TrainingPlan, swept: str) -> dict[str, Condition]:
    """What a sweep holds: every category at its first level, and age in the middle of what was asked unless age is swept."""
    held: dict[str, Condition] = {v.name: v.levels[0] for v in plan.variables if isinstance(v, Categorical)}
    for variable in plan.variables:
        if isinstance(variable, Continuous) and variable.name == "age" != swept:
            held["age"] = float(round(sum(_asked(plan, variable)) / 2))
    return held


def _asked(plan: TrainingPlan, variable: Continuous) -> tuple[float, float]:
    """The widest range that the release's cells ask for, or the variable's own."""
    cells = [cell.conditions[variable.name] for cell in plan.release.cells if variable.name in cell.conditions]
    edges = [float(edge) for cell in cells for edge in cell]
    low, high = min(edges, default=variable.low), max(edges, default=variable.high)
    return (low, high) if low < high else (variable.low, variable.high)


def _control(
    people: Sequence[Person], measured: Sequence[float], given: tuple[Sequence[float], Sequence[float]] | None
) -> Control | None:
    if given is None:
        pairs = [(person.conditions.get(_VENTRICLES), found) for person, found in zip(people, measured, strict=True)]
        given = [float(a) for a, _ in pairs if a is not None], [b for a, b in pairs if a is not None]
    known = [(float(a), float(b)) for a, b in zip(*given, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Control(_VENTRICLES, "ml", tuple(a for a, _ in known), tuple(b for _, b in known)) if known else None


def _in_json(value: object) -> object:
    match value:
        case dict():
            return {key: _in_json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_in_json(inner) for inner in value]
        case float() if math.isinf(value):
            return "infinite"
        case _:
            return value
