"""What one run was told: the plan with its overrides, the folder for its artefacts, and where each site's scans are.

Both apps read the same run configuration of Flower (pyproject.toml, [tool.flwr.app.config]) and so come to the same plan; a
site compares digests before it does anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import braing3n_core
from braing3n_core.errors import DataRefused, PlanRefused, UsageError
from braing3n_core.plan import TrainingPlan

INSTALLED = Path(braing3n_core.__file__).parent.parent       # a relative plan is looked for beside the packages
OWN = "own"                                                  # run-config data: every site has its own settings
DEFAULTS: dict[str, str | int | float] = {                   # the keys of a run and what they are when nobody sets them
    "plan": "simulations/recipes/demo.toml",
    "out-dir": "",                                           # ~/braing3n-runs/<study>-<run id>
    "data": "",                                              # the plan's phantom hospitals; "own": each site's own folder
    "epsilon": 0.0,                                          # as the plan says; so the next four
    "rounds": 0,
    "patients": 0,
    "seed": -1,
}
RunConfig = Mapping[str, bool | float | int | str]


@dataclass(frozen=True)
class Settings:
    """One run. `data` holds (site, BIDS folder); empty means the plan's phantom hospitals, or folders that the sites name."""

    plan: TrainingPlan
    out: Path
    data: tuple[tuple[str, Path], ...] = ()
    deployed: bool = False                                   # each site knows its own folder, and nobody else's

    @classmethod
    def read(cls, config: RunConfig, run: str) -> Settings:
        """From Flower's run configuration; `run` names the default output folder. Raises a refusal that names the key."""
        path = Path(_text(config, "plan")).expanduser()
        plan = overridden(
            read_plan(path if path.is_absolute() else INSTALLED / path),
            epsilon=_number(config, "epsilon") or None,
            rounds=int(_number(config, "rounds")) or None,
            patients=int(_number(config, "patients")) or None,
            seed=int(_number(config, "seed")) if _number(config, "seed") >= 0 else None,
        )
        out = Path(_text(config, "out-dir") or f"~/braing3n-runs/{plan.study}-{run}").expanduser()
        if not out.is_absolute():
            raise UsageError(f"out-dir={out} would land wherever Flower's daemon was started; give a full path")
        data = _text(config, "data")
        return cls(plan, out, () if data == OWN else folders(plan, shlex.split(data)), data == OWN)

    def config(self) -> dict[str, str | int | float]:
        """Run-config keys that `read` turns into these settings, once the plan is in its folder (server.conduct.claim)."""
        data = shlex.join(f"{site}={folder}" for site, folder in self.data)
        return {"plan": str(self.out / "plan.json"), "out-dir": str(self.out), "data": data}

    def bids(self, site: str) -> Path:
        """The site's scans: the folder that was named, or its phantom hospital."""
        return dict(self.data).get(site, self.out / "hospitals" / site)

    def folder(self, site: str) -> Path:
        """What the site keeps for itself: ledger, audit log, cache, its own log."""
        return self.out / "sites" / site


def overridden(
    plan: TrainingPlan,
    *,
    epsilon: float | None = None,
    rounds: int | None = None,
    patients: int | None = None,
    seed: int | None = None,
) -> TrainingPlan:
    """The plan with what is given in place of its own: rounds of every stage, patients of every site."""
    changes: dict[str, Any] = {}
    if epsilon is not None:
        changes["privacy"] = plan.privacy.model_copy(update={"epsilon": epsilon})
    if rounds is not None:
        changes["stages"] = [stage.model_copy(update={"rounds": rounds}) for stage in plan.stages]
    if patients is not None:
        changes["sites"] = [site.model_copy(update={"patients": patients}) for site in plan.sites]
    if seed is not None:
        changes["seed"] = seed
    return plan.but(**changes) if changes else plan


def folders(plan: TrainingPlan, words: list[str]) -> tuple[tuple[str, Path], ...]:
    """`site=DIR` words as pairs. Refuses an unknown or repeated site, a site left out, and real data under a rehearsal."""
    pairs = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (equals and folder):
            raise UsageError(f"--data {word}: write site=DIR, for example {plan.sites[0].name}=/data/bids")
        pairs.append((plan.site(name).name, Path(folder).expanduser().absolute()))
    _refuse_mixture(plan, [name for name, _ in pairs])
    for name, path in pairs:
        if not path.is_dir():
            raise DataRefused(f"{name}: no folder at {path}; name the BIDS folder of this site")
    return tuple(sorted(pairs))


def _refuse_mixture(plan: TrainingPlan, named: list[str]) -> None:
    if len(set(named)) < len(named):
        raise UsageError("a site was given two data folders; give each site one")
    missing = [site.name for site in plan.sites if site.name not in named]
    if plan.rehearsal is None and missing:
        raise DataRefused(f"no data for {', '.join(missing)}; give --data {missing[0]}=DIR, or take a recipe with phantoms")
    if plan.rehearsal is not None and named:
        raise PlanRefused("this plan rehearses with phantoms and may not touch real scans; take a recipe without [rehearsal]")


def read_plan(path: Path) -> TrainingPlan:
    """A plan as TOML, or the canonical JSON that a run keeps."""
    if path.suffix != ".json":
        return TrainingPlan.load(path)
    try:
        return TrainingPlan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanRefused(f"no plan can be read at {path}; name a TOML file, such as simulations/recipes/smoke.toml") from error


def _text(config: RunConfig, key: str) -> str:
    value = config.get(key, DEFAULTS[key])
    if not isinstance(value, str):
        raise UsageError(f"run-config {key}={value!r} must be text; put it in double quotes")
    return value


def _number(config: RunConfig, key: str) -> float:
    value = config.get(key, DEFAULTS[key])
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"run-config {key}={value!r} must be a number; leave the quotes out")
    return value
