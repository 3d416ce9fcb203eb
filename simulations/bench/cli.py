"""`braing3n-sim bench`: what runs cost."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from braing3n_core import console

bench = typer.Typer(no_args_is_help=True, help="What runs cost, counted or measured.")


@bench.callback()
def costs() -> None:
    """Keep sub-commands even while there is one."""


@bench.command()
def estimate(
    preset: Annotated[str, typer.Argument(help="tiny, small or base; all of them if not given.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Volumes in one training step.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps of one sampled volume.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; one volume a step.")] = False,
) -> None:
    """Parameters, memory and arithmetic of a preset, from its sizes alone, before anything is run."""
    from braing3n_core.errors import UsageError
    from braing3n_core.models.presets import PRESETS
    from braing3n_core.plan import DEFAULT_VARIABLES
    from simulations.bench import estimate as estimates

    if preset and preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}; choose from {', '.join(PRESETS)}")
    found = [estimates.estimate(name, PRESETS[name], DEFAULT_VARIABLES, steps) for name in ([preset] if preset else PRESETS)]
    lines = [line for each in found for line in estimates.told(each, batch)]
    console.show(json.dumps([estimates.as_json(each) for each in found], indent=1) if as_json else "\n".join(lines))


@bench.command()
def sampling(
    steps: Annotated[int, typer.Option(min=1, help="Steps of either sampler.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Volumes each makes, in turn; medians are compared.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Volumes a second of the shipped generator beside MONAI's latent diffusion of equal size, in turn, in one process."""
    from simulations.bench import sampling as samplings

    found = samplings.compare(steps, repeats, console.note)
    console.show(json.dumps(samplings.as_json(found), indent=1) if as_json else "\n".join(samplings.told(found)))
