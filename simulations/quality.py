"""How good a generator is, measured on one machine that holds all hospitals: the panel of numbers and their baselines.

The panel looks at patients held out from training, without privacy. It belongs to rehearsals and says so wherever it is
printed; a consortium of real hospitals has no such machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from braing3n_core import metrics
from braing3n_core.data.cohort import Patient
from braing3n_core.data.template import template
from braing3n_core.embedding import embed
from braing3n_core.forecast import forecast
from braing3n_core.generate import Decode, generate
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.morphometry import measures
from braing3n_core.plan import T1W, TrainingPlan
from braing3n_core.training import years_between
from server.release.inputs import Quality

Progress = Callable[[str, int, int], None]                   # what, done, total

ARMS = ("prior", "private", "non_private")
CONTROL_VOLUMES = 32
CONTROL_ML = (25.0, 43.0)                                    # 5th to 95th percentile of the public phantoms
_MOST_PATIENTS = 48                                          # held-out patients that generated ones are matched to
_PAIRS = 40                                                  # for MS-SSIM
_NEIGHBOURS = 5                                              # of coverage; fewer where there are not so many patients
_SEED = 20_260_000                                           # of generated volumes; the same for every arm


@dataclass(frozen=True)
class Reference:
    """What every arm is held against: held-out patients and what is measured on them."""

    volumes: Tensor                                          # (n, 1, D, H, W)
    conditions: tuple[Mapping[str, Condition], ...]
    features: np.ndarray                                     # (n, f) mean tokens of the public encoder
    organs: Mapping[str, np.ndarray]                         # (n,) ml of every tissue and of the ventricles
    followed: Followed | None                                # of a plan with a trajectory
    others: Mapping[str, Tensor]                             # other modality -> (k, 1, D, H, W), of those who have it

    @property
    def asked(self) -> list[dict[str, Condition]]:
        """What generated people are asked to be: the patients' conditions, but for the ventricles."""
        return [{**row, "ventricles": None} for row in self.conditions]

    @property
    def ageing(self) -> float:
        """Growth of their ventricles, ml per decade."""
        return _slope(np.array([_age(row) for row in self.conditions]), self.organs["ventricles_ml"])


@dataclass(frozen=True)
class Followed:
    """Held-out patients at their first and last visit."""

    first: Tensor                                            # (n, 1, D, H, W)
    conditions: tuple[Mapping[str, Condition], ...]
    years: Tensor                                            # (n,)
    before: np.ndarray                                       # (n,) ventricles, ml; so the next
    after: np.ndarray

    def error(self, model: Brain) -> float:
        """Mean error of forecast ventricles, ml."""
        made = forecast(model, self.first, model.codes(self.conditions), self.years)
        return float(np.abs(measures(made, model.preset)["ventricles_ml"] - self.after).mean())


@dataclass(frozen=True)
class Scores:
    """One arm's numbers; the units are those of `panel`."""

    reconstruction: float
    control: float
    distance: float
    frechet: float
    coverage: float
    organs: float
    ageing: float
    overlap: float
    outside: float
    similarity: float
    forecast: float | None
    shown: float | None                                      # reconstruction of the other modality


def panel(
    plan: TrainingPlan, arms: Mapping[str, Brain], held_out: Sequence[Patient], progress: Progress | None = None
) -> tuple[list[Quality], tuple[np.ndarray, np.ndarray]]:
    """Every number beside its baseline for each of `arms`, and (requested, measured) ventricles of the private arm, ml.

    `arms` maps "prior", "private" and "non_private" to models; one that is absent is reported as not measured.
    """
    public = arms["prior"]
    reference = reference_of(plan, public, held_out)
    scores: dict[str, Scores] = {}
    controls = {}
    for number, (name, model) in enumerate(arms.items()):
        if progress:
            progress(f"quality of {name.replace('_', '-')}", number, len(arms))
        controls[name] = _control(plan, model)
        scores[name] = scores_of(plan, model, public, reference, controls[name])
    rows = list(_rows(plan, public, reference, scores))
    return rows, controls["private" if "private" in controls else "prior"]


def three(rows: Sequence[Quality]) -> list[Quality]:
    """The numbers a demo prints: reconstruction, control, distance."""
    return list(rows[:3])


def reference_of(plan: TrainingPlan, public: Brain, held_out: Sequence[Patient]) -> Reference:
    """What is measured on held-out patients, once for every arm."""
    every = math.ceil(len(held_out) / _MOST_PATIENTS)        # a stride, so that every hospital is in it
    scans = [patient.scans[0] for patient in held_out[::every]]
    volumes = torch.stack([scan.volume for scan in scans])
    return Reference(
        volumes, tuple(scan.conditions for scan in scans), _features(public, volumes), measures(volumes, plan.model),
        _followed(plan, held_out[::every]) if public.trajectory is not None else None, _others(plan, held_out[::every]),
    )  # fmt: skip


def _others(plan: TrainingPlan, patients: Sequence[Patient]) -> dict[str, Tensor]:
    seen = {name: [s.volume for one in patients for s in one.others if s.modality == name] for name in plan.modalities}
    return {name: torch.stack(volumes) for name, volumes in seen.items() if volumes}


def _followed(plan: TrainingPlan, patients: Sequence[Patient]) -> Followed | None:
    """Those with visits that a forecast can join; None if nobody has."""
    pairs = [(patient.scans[0], patient.scans[-1]) for patient in patients]
    kept = [(pair, gap) for pair in pairs if (gap := years_between(*(scan.conditions for scan in pair))) > 0]
    if not kept:
        return None
    first, last = (torch.stack([pair[place].volume for pair, _ in kept]) for place in (0, 1))
    before, after = (measures(volumes, plan.model)["ventricles_ml"] for volumes in (first, last))
    rows = tuple(pair[0].conditions for pair, _ in kept)
    return Followed(first, rows, torch.tensor([gap for _, gap in kept]), before, after)


def people_like(plan: TrainingPlan, model: Brain, reference: Reference, decode: Decode | None = None) -> Tensor:
    """(n, 1, D, H, W) people of the held-out patients' conditions, the same noise in every arm; `decode` as in `generate`.

    Ventricles are left to the model: what a hospital's ageing looks like must come out of age and diagnosis.
    """
    return generate(model, reference.asked, _SEED, steps=plan.release.steps, guidance=plan.release.weights, decode=decode)


def scores_of(
    plan: TrainingPlan,
    model: Brain,
    public: Brain,
    reference: Reference,
    control: tuple[np.ndarray, np.ndarray] | None = None,
    made: Tensor | None = None,
) -> Scores:
    """One model's numbers; `control` (requested and measured ventricles) and `made` (`people_like`) are made if not given."""
    control = control or _control(plan, model)
    brain = template(plan.model).mask
    made = people_like(plan, model, reference) if made is None else made
    ages = np.array([_age(row) for row in reference.conditions])
    features, organs = _features(public, made), measures(made, plan.model)
    return Scores(
        reconstruction=float(np.mean([*_psnrs(model, reference.volumes, brain)])),
        control=metrics.correlation(*control),
        distance=metrics.kid(features, reference.features),
        frechet=metrics.against_real(metrics.frechet, reference.features, features, seed=1).value,
        coverage=metrics.against_real(_coverage, reference.features, features, seed=1).value,
        organs=largest_effect(*(_part(each, slice(0, len(ages) // 2)) for each in (reference.organs, organs))),
        ageing=_slope(ages, organs["ventricles_ml"]),
        overlap=float(np.mean([metrics.dice(metrics.brain_mask_of(volume), brain) for volume in made])),
        outside=max(metrics.signal_outside(volume, model.decoder.brain > 0) for volume in made),
        similarity=metrics.mean_pairwise_ms_ssim(made, _PAIRS, seed=1),
        forecast=reference.followed.error(model) if reference.followed else None,
        shown=_shown(model, reference.others, brain),
    )


def _rows(plan: TrainingPlan, public: Brain, reference: Reference, scores: Mapping[str, Scores]) -> Iterator[Quality]:
    def row(name: str, unit: str, better: str, baseline_name: str, baseline: float, field: str, note: str) -> Quality:
        values = {arm: getattr(scores[arm], field) if arm in scores else None for arm in ARMS}
        return Quality(name, unit, better, baseline_name, baseline, note=note, **values)  # type: ignore[arg-type]  # a literal

    brain = template(plan.model).mask
    mean = public.decoder.mean
    half = len(reference.volumes) // 2
    yield row(
        "reconstruction of held-out patients", "dB PSNR", "higher", "public mean volume",
        float(np.mean([metrics.psnr(volume, mean, brain) for volume in reference.volumes])), "reconstruction",
        "encode and decode, inside the template's brain",
    )
    yield row(
        "requested against measured ventricles", "r", "higher", "a generator that ignores the request", 0.0, "control",
        f"{CONTROL_VOLUMES} volumes, {CONTROL_ML[0]:g} to {CONTROL_ML[1]:g} ml asked for",
    )
    yield row(
        "distance of generated from held-out patients", "KID", "lower", "two halves of the held-out patients",
        metrics.kid(reference.features[:half], reference.features[half:]), "distance",
        "mean tokens of the public encoder; unbiased, so it may be below zero",
    )
    floors = {
        name: metrics.against_real(statistic, reference.features, reference.features, seed=1)
        for name, statistic in (("frechet", metrics.frechet), ("coverage", _coverage))
    }
    yield row(
        "Gaussian distance of generated from held-out patients", "Fréchet", "closer", "two halves of the held-out patients",
        floors["frechet"].floor, "frechet",
        f"{floors['frechet'].rows} against {floors['frechet'].rows}; mostly bias at this size, so only the difference counts",
    )
    yield row(
        "held-out patients that a generated one is like", "coverage", "closer", "two halves of the held-out patients",
        floors["coverage"].floor, "coverage",
        f"within reach of the {_NEIGHBOURS}th neighbour or the last, {floors['coverage'].rows} patients",
    )
    yield row(
        "largest difference in tissue volumes", "|Cohen's d|", "lower", "two halves of the held-out patients",
        largest_effect(_part(reference.organs, slice(0, half)), _part(reference.organs, slice(half, None))), "organs",
        f"brain, grey, white, fluid and ventricles, {half} people each; below 0.2 is called small",
    )
    yield row(
        "ventricle growth with age", "ml per decade", "closer", "held-out patients",
        reference.ageing, "ageing", "ventricles not asked for, so the curve is the model's own",
    )
    yield row(
        "overlap with the template's brain", "Dice", "higher", "held-out patients",
        float(np.mean([metrics.dice(metrics.brain_mask_of(volume), brain) for volume in reference.volumes])), "overlap", "",
    )
    yield row("signal outside the brain", "fraction", "lower", "none", 0.0, "outside", "worst volume")
    yield row(
        "similarity of pairs", "MS-SSIM", "closer", "pairs of held-out patients",
        metrics.mean_pairwise_ms_ssim(reference.volumes, _PAIRS, seed=1), "similarity", f"{_PAIRS} pairs; three scales",
    )
    if followed := reference.followed:
        yield row(
            "forecast of held-out patients' ventricles", "ml error", "lower", "no change since the first visit",
            float(np.abs(followed.after - followed.before).mean()), "forecast",
            f"{len(followed.years)} patients, {float(followed.years.mean()):.0f} years on average",
        )
    if others := reference.others:
        means = [metrics.psnr(one, public.modality(name).decoder.mean, brain) for name, many in others.items() for one in many]
        yield row(
            f"reconstruction of held-out patients' {' and '.join(others)}", "dB PSNR", "higher", "public mean volume",
            float(np.mean(means)), "shown", f"encode and decode, {len(means)} scans",
        )


def _control(plan: TrainingPlan, model: Brain) -> tuple[np.ndarray, np.ndarray]:
    """Ventricles asked for and measured, ml, spread evenly over their range; nothing else is asked for."""
    requested = np.linspace(*CONTROL_ML, CONTROL_VOLUMES)
    rows: list[dict[str, Condition]] = [{"ventricles": float(value), "modality": "T1w"} for value in requested]
    made = generate(model, rows, _SEED + 1, steps=plan.release.steps, guidance=plan.release.weights)
    return requested, measures(made, plan.model)["ventricles_ml"]


@torch.no_grad()
def _psnrs(model: Brain, volumes: Tensor, brain: Tensor, modality: str = T1W) -> Iterator[float]:
    for part in volumes.split(8):
        rebuilt = model.decode(model.encode(part, modality), modality)
        yield from (metrics.psnr(a, b, brain) for a, b in zip(part, rebuilt, strict=True))


def _shown(model: Brain, others: Mapping[str, Tensor], brain: Tensor) -> float | None:
    """Mean over all scans of other modalities; None where there are none."""
    found = [one for name, volumes in others.items() for one in _psnrs(model, volumes, brain, name)]
    return float(np.mean(found)) if found else None


def _features(public: Brain, volumes: Tensor) -> np.ndarray:
    """(n, f) mean-pooled tokens of the public encoder, the same for every arm."""
    return embed(public, volumes).double().numpy()


def _part(organs: Mapping[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in organs.items()}


def largest_effect(real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    """The largest |Cohen's d| of any measure."""
    return max(abs(one.effect) for one in metrics.plausibility(real, made))


def _coverage(real: np.ndarray, made: np.ndarray) -> float:
    return metrics.manifold(real, made, min(_NEIGHBOURS, len(real) - 1)).coverage


def _age(row: Mapping[str, Condition]) -> float:
    value = row.get("age")
    return float(value) if value is not None else float("nan")


def _slope(ages: np.ndarray, ml: np.ndarray) -> float:
    """Least-squares growth in ml per decade, over those whose age is known."""
    known = np.isfinite(ages)
    return float(np.polyfit(ages[known], ml[known], 1)[0] * 10)
