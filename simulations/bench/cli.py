"""`braing3n-sim bench`: what runs cost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from braing3n_core import console

bench = typer.Typer(no_args_is_help=True, help="What runs cost, counted or measured.")


@bench.command()
def estimate(
    preset: Annotated[str, typer.Argument(help="tiny, small or base; all of them if not given.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Volumes in one training step.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps of one sampled volume.")] = 12,
    here: Annotated[bool, typer.Option("--here", help="Say how long each takes on this machine at least.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; one volume a step, no machine.")] = False,
) -> None:
    """Parameters, memory and arithmetic of a preset, from its sizes alone, before anything is run."""
    import torch

    from braing3n_core.errors import UsageError
    from braing3n_core.models.presets import PRESETS
    from braing3n_core.plan import DEFAULT_VARIABLES
    from simulations.bench import estimate as estimates
    from simulations.bench.floor import Machine

    if preset:
        _refuse_unknown(preset)
    if here and as_json:
        raise UsageError("--json says nothing of a machine; leave out --here")
    found = [estimates.estimate(name, PRESETS[name], DEFAULT_VARIABLES, steps) for name in ([preset] if preset else PRESETS)]
    machine = Machine.measured(torch.get_num_threads(), time.perf_counter) if here else None
    lines = [*([machine.told()] if machine else []), *(line for each in found for line in estimates.told(each, batch, machine))]
    console.show(json.dumps([estimates.as_json(each) for each in found], indent=1) if as_json else "\n".join(lines))


@bench.command()
def sampling(
    steps: Annotated[int, typer.Option(min=1, help="Steps of either sampler.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Volumes each makes, in turn; medians are compared.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Processor time of a volume from the shipped generator and from MONAI's latent diffusion of equal size, in turn."""
    from simulations.bench import sampling as samplings

    found = samplings.compare(steps, repeats, threads, console.note)
    console.show(json.dumps(samplings.as_json(found), indent=1) if as_json else "\n".join(samplings.told(found)))


@bench.command()
def dp(
    model: Annotated[list[str] | None, typer.Option(help="generator, decoder or encoder; none for all.")] = None,
    views: Annotated[list[int] | None, typer.Option(min=1, help="Rows of each patient; none for 1 and 4.")] = None,
    patients: Annotated[int, typer.Option(min=1, help="Patients of a step with one view; a quarter with four.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns whose median is told.")] = 15,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    preset: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    method: Annotated[list[str] | None, typer.Option(help="loop, ghost, ... beside ours; `ours` alone; none: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print what a private step costs over a plain one: time and peak memory, beside the loop and Opacus."""
    from simulations.bench import dp as steps

    _refuse_unknown(preset)
    stages, beside = steps.stages(model or []), steps.methods(method or [])
    rows = steps.bench(stages, views or [1, 4], patients, rounds, threads, console.note, preset=preset, names=beside)
    console.show(json.dumps({"rows": rows}, indent=1) if as_json else "\n".join(steps.told(rows)))


@bench.command()
def laws(
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each size whose median is told.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Hold a private step's time and memory, and the server's, to one law over patients, views, tokens, weights and sites."""
    from braing3n_core.plan import TrainingPlan
    from simulations.bench import laws as of_cost

    plan = TrainingPlan.load(Path(__file__).parents[1] / "recipes" / "smoke.toml")
    rows = of_cost.bench(plan, of_cost.points(), rounds, console.note)
    console.show(of_cost.as_json(rows) if as_json else "\n".join(of_cost.told(rows)))


@bench.command()
def prepare(
    data: Annotated[Path, typer.Option(help="BIDS folder of real scans.")],
    scans: Annotated[int, typer.Option(min=1, help="At most so many, in the order of their names.")] = 10,
    preset: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Seconds that each step of preparing a scan takes, beside unpacking its file."""
    from braing3n_core.models.presets import PRESETS
    from simulations.bench import preparing

    _refuse_unknown(preset)
    found = preparing.bench(data, PRESETS[preset], scans, console.note)
    console.show(preparing.as_json(found) if as_json else "\n".join(preparing.told(found)))


@bench.command()
def release(
    out: Annotated[Path, typer.Option(help="Folder for one run of each size.")],
    volumes: Annotated[list[int] | None, typer.Option(min=1, help="Sizes; none for 100 and 300.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Seconds and memory of each step from a trained model to a signed release: does the cost grow with the count alone?"""
    from braing3n_core.plan import TrainingPlan
    from simulations.bench import releasing

    plan = TrainingPlan.load(Path(__file__).parents[1] / "recipes" / "demo.toml")
    rows = releasing.bench(plan, volumes or [100, 300], out, console.note)
    console.show(releasing.as_json(rows) if as_json else "\n".join(releasing.told(rows)))


@bench.command("round")
def round_(
    out: Annotated[Path, typer.Option(help="Folder for one run of each system.")],
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a round: what decides how long sites train.")] = 250,
    rounds: Annotated[int, typer.Option(min=2, help="The first of them is not counted.")] = 4,
    deployed: Annotated[bool, typer.Option("--deployed", help="Real SuperLink, nodes, TLS and keys; not simulated.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What a round costs beyond local training: the shipped way, and plain Flower FedAvg on the same tensors beside it."""
    from braing3n_core.plan import TrainingPlan
    from simulations.bench import deployed as processes
    from simulations.bench import round_cost

    plan = TrainingPlan.load(Path(__file__).parents[1] / "recipes" / "smoke.toml")
    measure = processes.bench if deployed else round_cost.bench
    rows = measure(plan, steps, rounds, out.expanduser().absolute(), console.note)
    console.show(round_cost.as_json(rows) if as_json else "\n".join(round_cost.told(rows)))


@bench.command()
def server(
    sites: Annotated[list[int] | None, typer.Option(min=1, help="Numbers of sites; none for 3, 10 and 30.")] = None,
    megabytes: Annotated[float, typer.Option(min=0.001, help="One update, 10^6 bytes.")] = 16.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    median: Annotated[bool, typer.Option("--median", help="Take the median, which holds every update, not the mean.")] = False,
    out: Annotated[Path | None, typer.Option(help="Whole runs behind Flower instead, with training, in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Memory and time of the server's side of a round as sites become many: it should hold sums, not sites."""
    from braing3n_core.plan import Aggregate, TrainingPlan
    from simulations.bench import crowd, serving

    plan = TrainingPlan.load(Path(__file__).parents[1] / "recipes" / "smoke.toml")
    if out is not None:
        runs = crowd.bench(plan, sites or [3, 10, 30], rounds, out.expanduser().absolute(), console.note)
        console.show(crowd.as_json(runs) if as_json else "\n".join(crowd.told(runs)))
        return
    rule = Aggregate(rule="median") if median else None
    rows = serving.bench(plan, sites or [3, 10, 30], megabytes, rounds, rule, console.note)
    console.show(serving.as_json(rows) if as_json else "\n".join(serving.told(rows)))


def _refuse_unknown(preset: str) -> None:
    from braing3n_core.errors import UsageError
    from braing3n_core.models.presets import PRESETS

    if preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}; choose from {', '.join(PRESETS)}")
