"""What is left of a scan once it was encoded and decoded: of unseen phantoms, of other scanners' and of real people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.data.phantom import phantoms
from braing3n_core.data.template import template
from braing3n_core.embedding import Pool, embed
from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.generate import BRIGHTEST
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import Preset
from braing3n_core.morphometry import measures
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import SHIPPED, read_prior
from simulations import probe
from simulations.recipe_files import RECIPES

Say = Callable[[str], None]
Way = Callable[[Tensor], Tensor]                             # (B, 1, D, H, W) scans -> what is left of them
MEAN: Final = "mean volume"
_TOGETHER = 16                                               # scans that are encoded at once
_SEED = 20_260_011                                           # of phantoms that no recipe here has drawn
_POPULATIONS: Final = {
    "phantoms": Hospital(name="public"),
    "other scanner": Hospital(name="other", contrast=0.12, bias=0.06, folding=1.5),
}


@dataclass(frozen=True)
class Kept:
    """How near the scans an arm comes. The interval is over people, 95 %."""

    arm: str
    people: str                                              # "phantoms", "other scanner" or a site
    numbers: int                                             # that a volume is kept as
    psnr: float                                              # dB inside the template's brain
    low: float
    high: float
    ms_ssim: float
    tissue: str                                              # whose mean volume lies furthest off
    off: float                                               # by so many deviations of the people, with its sign


@torch.no_grad()
def kept(arm: str, people: str, numbers: int, volumes: Tensor, way: Way, preset: Preset) -> Kept:
    """One arm's reconstruction of (n, 1, D, H, W) scans."""
    made = torch.cat([way(part).clamp(0, BRIGHTEST) for part in volumes.split(_TOGETHER)])
    each = [metrics.psnr(one, true, template(preset).mask) for one, true in zip(made, volumes, strict=True)]
    alike = [metrics.ms_ssim(one, true) for one, true in zip(made, volumes, strict=True)]
    low, high = metrics.bootstrap_interval(each, seed=0)
    tissue, off = max(_moved(volumes, made, preset).items(), key=lambda item: abs(item[1]))
    return Kept(arm, people, numbers, float(np.mean(each)), low, high, float(np.mean(alike)), tissue, off)


def _moved(volumes: Tensor, made: Tensor, preset: Preset) -> dict[str, float]:
    """By tissue, how far the mean volume of `made` lies from that of `volumes`, in deviations of the latter."""
    true, found = measures(volumes, preset), measures(made, preset)
    return {name.removesuffix("_ml"): float((found[name].mean() - ml.mean()) / ml.std(ddof=1)) for name, ml in true.items()}


def by_tokenizer(arm: str, people: str, volumes: Tensor, model: Brain) -> Kept:
    """What a model's own latents keep."""
    def way(part: Tensor) -> Tensor:
        return model.decode(model.encode(part))

    return kept(arm, people, model.centre.numel(), volumes, way, model.preset)


def by_mean(people: str, volumes: Tensor, model: Brain) -> Kept:
    """What nobody's latents keep: the public mean volume for everybody."""
    def way(part: Tensor) -> Tensor:
        return model.decoder.mean.expand(len(part), 1, *part.shape[2:])

    return kept(MEAN, people, 0, volumes, way, model.preset)


def compared(weights: Sequence[Path], out: Path, people: int, data: Sequence[str], say: Say) -> list[str]:
    """Every prior's tokenizer on the same people; the tables for a person, and below `out` the same for a program.

    `data`: site=DIR, registered as `real_three_sites` says. Raises UsageError if the priors are not of one grid (that recipe's
    where there are data), or if a name would stand for two things.
    """
    models = _models(weights)
    first = next(iter(models.values()))
    plan = probe.plan_for(TrainingPlan.load(RECIPES / "real_three_sites.toml"), data) if data else None
    if plan:
        _refuse(plan, first)
    out.mkdir(parents=True, exist_ok=True)
    real = probe.gather(plan, data, out / "cache", say) if plan else None
    rows = _all_kept(models, _groups(first.preset, people, real), say)
    found = json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False) + "\n"
    write_atomically(out / "tokenizer.json", found.encode())
    return [*told(rows), *(_probed(plan, models, real, out, say) if plan and real else [])]


def _probed(plan: TrainingPlan, models: Mapping[str, Brain], real: probe.People, out: Path, say: Say) -> list[str]:
    """What a probe reads from everybody's tokens; those of the first are called tokens."""
    (name, first), *others = models.items()
    theirs = {
        f"{other}, {pool}": embed(model, real.volumes, pool).double().numpy()
        for other, model in others
        for pool in get_args(Pool)
    }
    scores = probe.benchmark(plan, first, real, say, theirs)
    probe.write(scores, out / "probe.json")
    return [*probe.told(scores), f"tokens are those of {name}"]


def _groups(preset: Preset, people: int, real: probe.People | None) -> dict[str, Tensor]:
    """Scans by who they are of: (n, 1, D, H, W)."""
    groups = {name: _volumes(preset, people, hospital) for name, hospital in _POPULATIONS.items()}
    sites = dict.fromkeys(real.labels["site"]) if real else {}
    return groups | {str(site): real.first_scans(site) for site in sites if real}


def _all_kept(models: Mapping[str, Brain], groups: Mapping[str, Tensor], say: Say) -> list[Kept]:
    """Group after group: the mean volume, then every tokenizer."""
    rows: list[Kept] = []
    for group, volumes in groups.items():
        rows.append(by_mean(group, volumes, next(iter(models.values()))))
        rows += [by_tokenizer(name, group, volumes, model) for name, model in models.items()]
        say(f"{group}: kept by {len(models)} tokenizers")
    return rows


def _refuse(plan: TrainingPlan, model: Brain) -> None:
    """Refuse sites that would stand for phantoms, and a grid that the plan's scans are not brought to."""
    if taken := {site.name for site in plan.sites} & set(_POPULATIONS):
        raise UsageError(f"a site cannot be called {min(taken)!r} here, as the table's phantoms are; give it another name")
    if model.preset != plan.model:
        raise UsageError("real scans are brought to the grid of preset tiny, and the weights are of another; leave --data out")


def told(rows: Sequence[Kept]) -> list[str]:
    """The table for a person."""
    lines = [f"{'kept of a scan':<26}{'people':<15}{'numbers':>8}{'dB':>7}  {'95 % interval':<16}{'MS-SSIM':<9}off by"]
    for row in rows:
        interval, furthest = f"{row.low:.2f} to {row.high:.2f}", f"{row.tissue} {row.off:+.2f}"
        first = f"{row.arm:<26}{row.people:<15}{row.numbers:>8}{row.psnr:>7.2f}"
        lines.append(f"{first}  {interval:<16}{row.ms_ssim:<9.3f}{furthest}")
    return lines


def _models(weights: Sequence[Path]) -> Mapping[str, Brain]:
    """By the name of the folder that the weights lie in; "shipped" if none are named."""
    if not weights:
        return {"shipped": read_prior(SHIPPED / "tiny.safetensors").eval()}
    models = {path.resolve().parent.name: read_prior(path).eval() for path in weights}
    if len(models) < len(weights):
        raise UsageError("two of the weights lie in folders of one name; call the folders apart")
    if taken := models.keys() & {MEAN, "tokens"}:
        raise UsageError(f"weights cannot lie in a folder called {min(taken)!r}, as the tables' own rows are; rename it")
    grids = {(model.preset.shape, model.preset.spacing_mm) for model in models.values()}
    if len(grids) > 1:
        raise UsageError("the weights are of different grids, so they cannot keep the same scans; compare those of one preset")
    return models


def _volumes(preset: Preset, people: int, hospital: Hospital) -> Tensor:
    return torch.stack([volume for volume, _ in phantoms(preset, people, _SEED, hospital)])
