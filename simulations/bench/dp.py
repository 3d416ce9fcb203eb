"""`braing3n-sim bench dp`: the cost of a private step over a plain step, same model, same patients, same views.

A step makes a batch of patients, then forward, backward, clip, noise and AdamW; the plain one has neither clip nor noise. All
steps of a model take turns in one process, and every private time is divided by the plain time of the same turn, so a busy
machine slows both. The floor is that of the plain step (floor.py): no clipping has to cost anything.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypedDict

import torch
from torch.profiler import ProfilerActivity, profile

from braing3n_core.errors import UsageError
from braing3n_core.models.presets import PRESETS
from privacy.dp_sgd import Engine, private_gradient, trainable
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian
from privacy.heap import keep_freed_memory
from privacy.randomness import SecretNoise
from simulations.bench.floor import FLOAT, Machine, Work, flops, training_bytes
from simulations.bench.rivals import Mode, opacus_step
from simulations.bench.subjects import STAGES, Benched, Subject, subject

Step = Callable[[], None]
Say = Callable[[str], None]
METHODS: Final = ("ours", "loop", "opacus_hooks", "functorch", "ghost")
_UNASKED: Final = "not asked for"
_CLIP, _NOISE, _LEARNING_RATE = 1.0, 1.0, 1e-4
_LIMITS: Final[dict[Benched, tuple[float, float]]] = {     # with one view, with four or more
    "generator": (1.15, 1.10),
    "decoder": (1.15, 1.10),
    "encoder": (1.25, 1.25),
}
_ENGINES: Final[dict[str, Engine]] = {"ours": "fast", "loop": "loop"}
_MODES: Final[dict[str, Mode]] = {"opacus_hooks": "hooks", "functorch": "functorch", "ghost": "ghost"}


class Floor(TypedDict):
    """What the step has to do, the seconds that this machine needs for it at least, and how many times that was taken."""

    flops: float
    bytes: float
    seconds: float
    plain: float
    ours: float


class Row(TypedDict):
    """One line of the table: times and peak memories as ratios to the plain step, or why there is none."""

    model: str
    views: int
    patients: int
    ours: float | str
    loop: float | str
    opacus_hooks: float | str
    functorch: float | str
    ghost: float | str
    memory: dict[str, float]
    limit: float | None                                      # of the tiny preset, for which it was promised
    floor: Floor


def stages(names: Sequence[str]) -> list[Benched]:
    """The stages so named, all if none is. Raises UsageError for another name."""
    unknown = set(names) - set(STAGES)
    if unknown:
        raise UsageError(f"there is no model {min(unknown)!r} to measure; name {', '.join(STAGES)}, or none for all")
    return [stage for stage in STAGES if stage in names or not names]


def methods(names: Sequence[str]) -> list[str]:
    """The private steps so named, and always ours; all if none is. Raises UsageError for another name."""
    unknown = set(names) - set(METHODS)
    if unknown:
        raise UsageError(f"there is no method {min(unknown)!r} to measure; name {', '.join(METHODS)}, or none for all")
    return [name for name in METHODS if name == "ours" or name in names or not names]


def bench(
    stages: Sequence[Benched],
    views: Sequence[int],
    patients: int,
    rounds: int,
    threads: int,
    say: Say,
    *,
    preset: str = "tiny",
    names: Sequence[str] = METHODS,
) -> list[Row]:
    """The table, row by row. The rows of a step stay about as many: `patients` patients with one view, fewer with more."""
    torch.set_num_threads(threads)
    keep_freed_memory()                                      # for the plain step as for the private ones
    machine, rows = Machine.measured(threads), []
    say(machine.told())
    for stage in stages:
        for count in views:
            chosen = subject(stage, max(1, patients // count), count, PRESETS[preset])
            say(f"{chosen.name}, views={count}")
            rows.append(_row(chosen, count, rounds, machine, names, limit(stage, count) if preset == "tiny" else None))
    return rows


def limit(stage: Benched, views: int) -> float:
    """What a private step may cost at most, over a plain one."""
    return _LIMITS[stage][views >= 4]


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people."""
    ends = f"{'limit':>7}{'memory':>8}{'floor s':>9}{'plain':>7}{'ours':>6}"
    yield f"{'model':32}{'views':>6}" + "".join(f"{name:>14}" for name in METHODS) + ends
    for row in rows:
        cells = [row["ours"], row["loop"], row["opacus_hooks"], row["functorch"], row["ghost"]]
        promised = "" if row["limit"] is None else f"{row['limit']:.2f}"
        floor = f"{row['floor']['seconds']:9.3f}{row['floor']['plain']:7.1f}{row['floor']['ours']:6.1f}"
        times = "".join(_cell(cell) for cell in cells)
        yield f"{row['model']:32}{row['views']:6d}{times}{promised:>7}{row['memory']['ours']:8.2f}{floor}"
    reasons = {str(row[name]): None for row in rows for name in METHODS if isinstance(row[name], str)}
    yield from (f"refused: {reason}" for reason in reasons if reason != _UNASKED)
    yield "times the plain step of the same turn; the last two are times the floor of the plain step"


def _cell(found: float | str) -> str:
    return f"{found:14.2f}" if isinstance(found, float) else f"{'' if found == _UNASKED else 'refused':>14}"


def _row(
    chosen: Subject, views: int, rounds: int, machine: Machine, names: Sequence[str], promised: float | None
) -> Row:
    steps, refusals = _steps(chosen, views, names)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ratios = {name: _median_ratio(own, times["plain"]) for name, own in times.items()}
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    found: Mapping[str, float | str] = {**ratios, **refusals}
    return Row(
        model=chosen.name, views=views, patients=len(chosen.patients), ours=found["ours"], loop=found["loop"],
        opacus_hooks=found["opacus_hooks"], functorch=found["functorch"], ghost=found["ghost"],
        memory={name: peak / peaks["plain"] for name, peak in peaks.items() if name != "plain"},
        limit=promised, floor=_floor(chosen, times["plain"], times["ours"], machine),
    )  # fmt: skip


def _floor(chosen: Subject, plain: Sequence[float], ours: Sequence[float], machine: Machine) -> Floor:
    weights = sum(parameter.numel() for parameter in trainable(chosen.model).values())
    entering = FLOAT * sum(column.numel() for column in chosen.batch)
    work = Work(flops(_plain(chosen)), training_bytes(weights) + entering)
    least = machine.least(work)
    return Floor(
        flops=work.flops, bytes=work.bytes, seconds=least,
        plain=statistics.median(plain) / least, ours=statistics.median(ours) / least,
    )  # fmt: skip


def _steps(chosen: Subject, views: int, names: Sequence[str]) -> tuple[dict[str, Step], dict[str, str]]:
    """Every step that runs, each on a model of its own and run once to warm up, and for the others why they do not."""
    steps: dict[str, Step] = {"plain": _plain(chosen)}
    refusals: dict[str, str] = {}
    steps["plain"]()
    for name in METHODS:
        if name not in names:
            refusals[name] = _UNASKED
            continue
        if views > 1 and name in _MODES:
            refusals[name] = "Opacus clips rows: with several rows of one patient that is another mechanism"
            continue
        try:
            step = private_step(chosen, _ENGINES[name]) if name in _ENGINES else _rival(chosen, _MODES[name])
            step()
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, MechanismRefused) as error:
            refusals[name] = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            steps[name] = step
    return steps, refusals


def _plain(chosen: Subject) -> Step:
    model = copy.deepcopy(chosen.model)
    optimizer = torch.optim.AdamW(list(trainable(model).values()), _LEARNING_RATE)

    def step() -> None:
        chosen.loss(model, chosen.batch).mean().backward()  # from patients to a batch, as the private steps
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def private_step(chosen: Subject, engine: Engine) -> Step:
    """The step that sites run, with secret noise."""
    model, event, noise = copy.deepcopy(chosen.model), SampledGaussian(chosen.stage, _NOISE, 0.5, 1), SecretNoise()
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(list(parameters.values()), _LEARNING_RATE)

    def step() -> None:
        expected = float(len(chosen.patients))
        found = private_gradient(model, chosen.patients, chosen.loss, _CLIP, event, expected, noise, engine)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _rival(chosen: Subject, mode: Mode) -> Step:
    return opacus_step(chosen, mode, _CLIP, _NOISE, _LEARNING_RATE)


def seconds(step: Step) -> float:
    """Processor seconds of all threads: what the step cost, however many others share the machine."""
    started = time.process_time()
    step()
    return time.process_time() - started


def _median_ratio(own: Sequence[float], plain: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, plain, strict=True))


def peak_bytes(step: Step) -> int:
    """The most tensor memory a step holds at once, beyond what it began with."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    held = peak = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
