"""The whole comparison: the baseline trained if it is not there, then every table, on phantoms and on real scans if named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braing3n_core.files import write_atomically
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import SHIPPED, read_prior
from server.optimise import Say
from server.prior import batched
from simulations import probe
from simulations.baselines import table
from simulations.baselines.training import BaselineRecipe, arithmetic, trained
from simulations.recipe_files import RECIPES

_REAL = RECIPES / "real_three_sites.toml"                    # whose registration


def compared(recipe: BaselineRecipe, out: Path, people: int, data: Sequence[str], say: Say) -> list[str]:
    """Train, measure and write below `out`; the tables for a person. `data`: site=DIR.

    Raises what reading `data` raises, before anything is trained.
    """
    plan = probe.plan_for(TrainingPlan.load(_REAL), data) if data else None
    real = probe.gather(plan, data, out / "cache", say) if plan else None
    ours, monai = read_prior(SHIPPED / f"{recipe.preset}.safetensors"), trained(recipe, out, say)
    found = table.arms(ours, monai, people, say)
    rebuilt, scores = table.kept(found, found.unseen.volumes, "phantoms"), []
    if plan and real:
        for site in dict.fromkeys(real.labels["site"]):
            rebuilt += table.kept(found, real.first_scans(site), str(site))
        latents = batched(monai.encode, real.volumes).flatten(1).double().numpy()
        scores = probe.benchmark(plan, ours, real, say, {"MONAI, all latents": latents})
        probe.write(scores, out / "probe.json")
    rows, volumes = table.made(found, say)
    flops = arithmetic(recipe)
    table.write(rebuilt, rows, flops, out / "baselines.json")
    write_atomically(out / "baselines.png", table.picture(found, volumes))
    return [*table.told(rebuilt, rows, flops), *(probe.told(scores) if scores else [])]
