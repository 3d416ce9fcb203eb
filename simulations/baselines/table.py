"""Ours beside what is there already, on people that none of them saw: what is kept of a scan, how good people are, how fast.

KID, coverage and one Frechet distance are of mean tokens of the public encoder, which ours decodes from and the others do not.
The other Frechet distance is of scores along components of voxels, each in units of people's deviation, which PCA draws along.
Tissue volumes, pairs and the ventricles that were asked for are nobody's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from braing3n_core import figures, metrics
from braing3n_core.embedding import embed
from braing3n_core.files import write_atomically
from braing3n_core.flow import heun
from braing3n_core.generate import BRIGHTEST, generate
from braing3n_core.models.brain import Brain
from braing3n_core.morphometry import measures
from simulations import reconstruction
from simulations.baselines.latent_diffusion import LATENT_CHANNELS, LatentDiffusion
from simulations.baselines.linear import LinearGaussian, features_of
from simulations.quality import largest_effect
from simulations.reconstruction import Kept
from simulations.tstr import People, of_phantoms

Say = Callable[[str], None]
Sampler = Callable[[slice], Tensor]                          # which people -> (B, 1, D, H, W)
OURS, MONAI, PCA, REAL = "braing3n tiny", "MONAI latent diffusion", "PCA of 640 phantoms", "other people"
_FITTED = 640                                                # phantoms of PCA, all of the public scanner; some are the others
_KEPT_BY_PCA = (64, 512)                                     # components
_HEUN, _DDIM = (2, 3, 6, 12), (5, 10, 25, 50, 100)           # steps that are tried
_TOGETHER = 16                                               # people that every sampler makes before the next do
_ALIKE = 1.1                                                 # times a Frechet distance: as good as that
Distance = Literal["frechet", "linear"]
_PAIRS, _SEED, _SHOWN = 60, 20_260_003, 4


@dataclass(frozen=True)
class Made:
    """Generated people of the conditions of as many unseen ones."""

    arm: str
    evaluations: int                                         # of the network, a volume
    seconds: float                                           # of the processor, a volume; all take turns in one process
    kid: float
    frechet: float
    linear: float                                            # Frechet distance of scores along components of voxels
    coverage: float
    organs: float                                            # largest |Cohen's d| of a tissue's volume
    ventricles: float                                        # r of asked, among all other conditions, and measured
    pairs: float                                             # MS-SSIM


@dataclass(frozen=True)
class Arms:
    """Everything that is compared, and the phantoms it is compared on."""

    ours: Brain
    monai: LatentDiffusion
    linear: LinearGaussian
    others: People
    unseen: People


def arms(ours: Brain, monai: LatentDiffusion, people: int, say: Say) -> Arms:
    """With what is fitted in closed form, and people to hold everybody against."""
    say(f"phantoms: {_FITTED} for PCA, {people} that nobody saw")
    others, unseen = of_phantoms(ours, _FITTED, people)
    linear = LinearGaussian(others.volumes, features_of(ours, others.conditions), ours.decoder.brain > 0)
    return Arms(ours.eval(), monai, linear, People(others.volumes[:people], others.conditions[:people]), unseen)


def kept(found: Arms, volumes: Tensor, people: str) -> list[Kept]:
    """Every arm's reconstruction of (n, 1, D, H, W) scans."""
    model, monai, linear = found.ours, found.monai, found.linear
    others: list[tuple[str, int, reconstruction.Way]] = [
        *((PCA, count, partial(linear.rebuilt, components=count)) for count in _KEPT_BY_PCA),
        (MONAI, LATENT_CHANNELS * int(np.prod(monai.latent)), lambda part: monai.decode(monai.encode(part))),
    ]
    return [
        reconstruction.by_mean(people, volumes, model),
        *(reconstruction.kept(name, people, numbers, volumes, way, model.preset) for name, numbers, way in others),
        reconstruction.by_tokenizer(OURS, people, volumes, model),
    ]


def made(found: Arms, say: Say) -> tuple[list[Made], dict[str, Tensor]]:
    """Every sampler at every number of steps, in turn; and the people of each arm's most steps."""
    samplers = _samplers(found)
    volumes: dict[tuple[str, int], list[Tensor]] = {key: [] for key in samplers}
    seconds = dict.fromkeys(samplers, 0.0)
    count = len(found.unseen)
    for sampler in samplers.values():
        sampler(slice(0, 1))                                 # what the first call alone costs is not counted
    for first in range(0, count, _TOGETHER):
        for key, sampler in samplers.items():
            began = process_time()
            volumes[key].append(sampler(slice(first, min(first + _TOGETHER, count))).clamp(0, BRIGHTEST))
            seconds[key] += process_time() - began
        say(f"people: {min(first + _TOGETHER, count)} of {count} by each of {len(samplers)} samplers")
    people = {key: torch.cat(parts) for key, parts in volumes.items()}
    real = _measured(found, found.unseen.volumes)
    rows = [_made(found, real, arm, steps, seconds[arm, steps] / count, people[arm, steps]) for arm, steps in samplers]
    rows.append(_made(found, real, REAL, 0, 0.0, found.others.volumes))
    return rows, {arm: each for (arm, _), each in people.items()}


def _samplers(found: Arms) -> dict[tuple[str, int], Sampler]:
    """(arm, evaluations) -> what makes those people."""
    model, monai, rows = found.ours, found.monai, found.unseen.conditions
    codes, features = model.codes(rows), features_of(model, rows)

    def ours(steps: int) -> Sampler:
        return lambda part: generate(
            model, rows[part], _SEED + part.start, steps=steps, guidance=1.0, sampler=heun, batch=_TOGETHER
        )

    def theirs(steps: int) -> Sampler:
        return lambda part: monai.sample(codes[part], steps, _SEED + part.start)

    return {
        **{(OURS, 2 * steps - 1): ours(steps) for steps in _HEUN},
        **{(MONAI, steps): theirs(steps) for steps in _DDIM},
        (PCA, 1): lambda part: found.linear.sample(features[part], _SEED + part.start),
    }


@dataclass(frozen=True)
class _Measured:
    """What distances are taken of."""

    tokens: np.ndarray                                       # (n, f) mean tokens of the public encoder
    scores: np.ndarray                                       # (n, K) along components of voxels
    organs: Mapping[str, np.ndarray]                         # (n,) ml of each


def _measured(found: Arms, volumes: Tensor) -> _Measured:
    model = found.ours
    tokens, scores = embed(model, volumes).double().numpy(), found.linear.scores(volumes).double().numpy()
    return _Measured(tokens, scores, measures(volumes, model.preset))


def _made(found: Arms, real: _Measured, arm: str, evaluations: int, seconds: float, volumes: Tensor) -> Made:
    seen, unit = _measured(found, volumes), real.scores.std(0)
    asked = [float(str(row["ventricles"])) for row in (found.others if arm == REAL else found.unseen).conditions]
    return Made(
        arm, evaluations, seconds, metrics.kid(seen.tokens, real.tokens), metrics.frechet(seen.tokens, real.tokens),
        metrics.frechet(seen.scores / unit, real.scores / unit), metrics.manifold(real.tokens, seen.tokens).coverage,
        largest_effect(real.organs, seen.organs), metrics.correlation(asked, seen.organs["ventricles_ml"]),
        metrics.mean_pairwise_ms_ssim(volumes, _PAIRS, seed=1),
    )  # fmt: skip


def best(rows: Sequence[Made], arm: str, by: Distance) -> float:
    """The least Frechet distance of an arm."""
    return min(_distance(row, by) for row in rows if row.arm == arm)


def cheapest(rows: Sequence[Made], arm: str, by: Distance, target: float) -> Made:
    """The fewest evaluations of an arm whose Frechet distance is about `target` or less."""
    reached = [row for row in rows if row.arm == arm and _distance(row, by) <= _ALIKE * target]
    return min(reached, key=lambda row: row.evaluations)


def _distance(row: Made, by: Distance) -> float:
    return row.frechet if by == "frechet" else row.linear


def told(rebuilt: Sequence[Kept], people: Sequence[Made], flops: Mapping[str, tuple[float, float]]) -> list[str]:
    """The tables for a person. Seconds are this machine's; only their ratio travels."""
    lines = reconstruction.told(rebuilt)
    heads = f"{'KID':>8}{'Frechet':>9}{'linear':>8}{'coverage':>10}{'tissues':>9}{'asked r':>9}{'pairs':>7}{'seconds':>9}"
    lines.append(f"{'people':<26}{'evaluations':>12}{heads}")
    for one in people:
        sets = f"{one.kid:>8.4f}{one.frechet:>9.2f}{one.linear:>8.1f}{one.coverage:>10.3f}"
        each = f"{one.organs:>9.2f}{one.ventricles:>9.3f}{one.pairs:>7.3f}"
        cost = f"{one.seconds:>9.3f}" if one.evaluations else f"{'-':>9}"
        lines.append(f"{one.arm:<26}{one.evaluations or '-':>12}{sets}{each}{cost}")
    lines.append("KID, Frechet, coverage: mean tokens of the public encoder; linear: of components of voxels; pairs: MS-SSIM")
    for by in get_args(Distance):
        ours, theirs = (best(people, arm, by) for arm in (OURS, MONAI))
        both = max(ours, theirs)
        lines += [_speed(people, by, "each gets", ours, theirs), _speed(people, by, "both get", both, both)]
    spent = ", ".join(f"{stage} {theirs / ours:.2f}" for stage, (ours, theirs) in flops.items())
    return [*lines, f"arithmetic of MONAI's training over ours: {spent}"]


def _speed(people: Sequence[Made], by: Distance, whom: str, our_target: float, their_target: float) -> str:
    ours, theirs = cheapest(people, OURS, by, our_target), cheapest(people, MONAI, by, their_target)
    needed = f"ours needs {ours.evaluations} evaluations, MONAI's {theirs.evaluations}"
    ratio = f"volumes a second, ours over theirs: {theirs.seconds / ours.seconds:.1f}"
    return f"to be as good as {whom} by {'Frechet' if by == 'frechet' else by}, {needed}; {ratio}"


def write(rebuilt: Sequence[Kept], people: Sequence[Made], flops: Mapping[str, tuple[float, float]], out: Path) -> None:
    """The same for a program."""
    found = {
        "kept": [asdict(row) for row in rebuilt], "made": [asdict(row) for row in people],
        "training_flops": {stage: {"ours": ours, "theirs": theirs} for stage, (ours, theirs) in flops.items()},
    }  # fmt: skip
    write_atomically(out, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())


def picture(found: Arms, people: Mapping[str, Tensor]) -> bytes:
    """PNG: a row for unseen people and one for each arm's people of the same conditions; middle axial planes."""
    rows = {"unseen phantoms": found.unseen.volumes, **people}
    figure = figures.blank(2.2 * _SHOWN, 2.3 * len(rows), 110)
    for place, (name, volumes) in enumerate(rows.items()):
        for column in range(_SHOWN):
            axes = figure.add_subplot(len(rows), _SHOWN, _SHOWN * place + column + 1)
            plane = volumes[column, 0].select(2, volumes.shape[-1] // 2).T.numpy()
            axes.imshow(plane, origin="lower", cmap="gray", vmin=0, vmax=BRIGHTEST)
            age = found.unseen.conditions[column]["age"]
            title = f"{float(str(age)):.0f} years" if place == 0 else None
            axes.set(xticks=[], yticks=[], ylabel=name if column == 0 else None, title=title)
    return figures.png(figure)
