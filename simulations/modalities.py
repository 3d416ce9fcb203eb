"""Whether a FLAIR that is made from a T1w is of the same brain: phantoms whose FLAIR is known, and generated pairs.

Voxels of unseen phantoms, beside rivals that know less or more; then what is measured on both images of a person, and whether
lesions that are asked for are seen where hospitals look for them: bright on the FLAIR. Two readers look: the measure of
`prepare`, and a ridge on voxels that was fitted to phantoms whose lesions are known and is no part of how images are made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braing3n_core import figures, metrics, tissues
from braing3n_core.data.cohort import load_cohort
from braing3n_core.data.patient import Person, Wishes, people
from braing3n_core.data.preprocess import on_grid
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused
from braing3n_core.files import write_atomically
from braing3n_core.generate import Guidance, noise_of
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.models.presets import Preset
from braing3n_core.people import Wanted, images, translated
from braing3n_core.plan import T1W, Hospital, TrainingPlan
from server.trajectory import visits_of
from simulations.probe import voxels

FLAIR = "FLAIR"
STEPS = 12
Say = Callable[[str], None]
_UNSEEN, _SEED = 770_001, 20_260_003                         # of phantoms that no weights were trained on; of generated people
_MOST_ML = 20.0                                              # lesions that are asked for, from none
_FITTED, _FITTED_FROM = 300, 880_001                         # phantoms that the second reader learns from, lesions at any age
_LOADS = (0.0, 5.0, 10.0, 20.0, 40.0)                        # ml that one person is shown with
_VENTRICLES_ML = (25.0, 60.0)                                # ventricles that are asked for


@dataclass(frozen=True)
class Way:
    """One way to say what a FLAIR looks like: decibels nearer to it than the public mean FLAIR, with 95 % interval."""

    way: str
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Two lists of numbers about the same images."""

    what: str
    people: str                                              # phantoms or generated
    r: float
    asked: tuple[float, ...]                                 # or true, or of the other image
    seen: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Of what is seen on what was asked."""
        return float(np.polyfit(self.asked, self.seen, 1)[0])


@dataclass(frozen=True)
class Told:
    """The tables, and volumes (n, 1, D, H, W) of the phantoms: T1w, FLAIR as scanned, and as made from the T1w.

    `loaded`: one generated person's FLAIR with each of `_LOADS`.
    """

    ways: tuple[Way, ...]
    agreements: tuple[Agreement, ...]
    pictures: tuple[Tensor, Tensor, Tensor]
    loaded: Tensor


def told_for(model: Brain, count: int, say: Say, guidance: Guidance = 1.0) -> Told:
    """Hold the model's FLAIR against `count` unseen phantoms, and `count` generated people against what was asked for."""
    say(f"{count} phantoms with T1w and {FLAIR}")
    seen = list(people(model.preset, count, _UNSEEN, Hospital(name="public"), Wishes(modalities=(T1W, FLAIR))))
    t1w, flair = (torch.stack([person.visits[0].images[name][None] for person in seen]) for name in (T1W, FLAIR))
    say(f"{FLAIR} from their T1w")
    made = from_t1w(model, t1w, [visits_of(person, model.preset)[0] for person in seen])
    ways = {
        "own latents": _rebuilt(model, flair),
        "made from the T1w": made,
        "made from another's T1w": made.roll(1, 0),
    }
    say(f"{count} generated people, lesions asked for")
    agreements = _agreements(model, seen, (flair, ways["own latents"], made), count, guidance)
    rows = [Wanted({"modality": T1W, "age": 70.0, "lesions": load}, 0, 0.0, FLAIR) for load in _LOADS]
    loaded = images(model, rows, _SEED, steps=STEPS, guidance=guidance)
    return Told(_ways(model, flair, ways), agreements, (t1w, flair, made), loaded)


def of_patients(model: Brain, plan: TrainingPlan, bids: Path, cache: Path) -> tuple[Way, ...]:
    """The same of real scans: patients with as many T1w as FLAIR, visit by visit. Raises DataRefused if there are none."""
    asked = plan.but(rehearsal=None, data={"registration": "affine"})
    cohort = load_cohort(bids, asked, cache)
    pairs = [(one, other) for person in cohort.patients if len(person.scans) == len(person.others)
             for one, other in zip(person.scans, person.others, strict=True)]  # fmt: skip
    if not pairs:
        raise DataRefused(f"no patient in {bids.name} has a {FLAIR} for each T1w; name a folder where some have")
    t1w, flair = (torch.stack([pair[place].volume for pair in pairs]) for place in (0, 1))
    made = from_t1w(model, t1w, [one.conditions for one, _ in pairs])
    return _ways(model, flair, {"own latents": _rebuilt(model, flair), "made from the T1w": made})


@torch.no_grad()
def from_t1w(model: Brain, t1w: Tensor, known: Sequence[Mapping[str, Condition]]) -> Tensor:
    """(n, 1, D, H, W): one FLAIR for each T1w (n, 1, D, H, W), of what is known of these people."""
    codes = model.codes(known)
    noise = noise_of(model, _SEED, len(t1w))
    parts = zip(t1w.split(8), codes.split(8), noise.split(8), strict=True)
    return torch.cat([translated(model, FLAIR, model.encode(a), b, c, steps=STEPS).clamp(0, 1.3) for a, b, c in parts])


@torch.no_grad()
def _rebuilt(model: Brain, flair: Tensor) -> Tensor:
    return torch.cat([model.decode(model.encode(part, FLAIR), FLAIR) for part in flair.split(8)])


def _ways(model: Brain, flair: Tensor, ways: dict[str, Tensor]) -> tuple[Way, ...]:
    inside = model.decoder.brain > 0
    nothing = _squares(model.modality(FLAIR).decoder.mean.expand_as(flair), flair, inside)
    rows = []
    for name, volumes in ways.items():
        gains = 10 * np.log10(nothing / _squares(volumes, flair, inside))
        low, high = metrics.bootstrap_interval(gains, seed=0)
        rows.append(Way(name, float(gains.mean()), low, high))
    return tuple(rows)


def _squares(one: Tensor, other: Tensor, inside: Tensor) -> np.ndarray:
    """(n,) mean squared difference inside the brain."""
    return np.asarray((one - other).square()[:, 0, inside].mean(1).double().numpy())


def _agreements(
    model: Brain, seen: Sequence[Person], shown: tuple[Tensor, Tensor, Tensor], count: int, guidance: Guidance
) -> tuple[Agreement, ...]:
    """Lesions and ventricles: of phantoms in truth and on the FLAIR, of generated people as asked for and on the FLAIR."""
    truth = [person.visits[0].truth for person in seen]
    asked = np.linspace(0.0, _MOST_ML, count)
    order = np.random.default_rng(0).permutation(count)      # so that ventricles say nothing of lesions
    rows: list[dict[str, Condition]] = [
        {"modality": T1W, "age": 65.0, "lesions": float(load), "ventricles": float(size)}
        for load, size in zip(asked, np.linspace(*_VENTRICLES_ML, count)[order], strict=True)
    ]
    wanted = [Wanted(row, number, 0.0, name) for name in (T1W, FLAIR) for number, row in enumerate(rows)]
    t1w, flair = images(model, wanted, _SEED, steps=STEPS, guidance=guidance).chunk(2)
    scanned, rebuilt, made = (measured(volumes, FLAIR, model.preset) for volumes in shown)
    generated, beside = measured(flair, FLAIR, model.preset), measured(t1w, T1W, model.preset)
    lesions, reader = [one["lesions"] for one in truth], _ridge(model)
    return (
        _agreement("lesions, true and on the FLAIR", "phantoms, scanned", lesions, scanned["lesions"]),
        _agreement("lesions, true and on the FLAIR", "phantoms, own latents", lesions, rebuilt["lesions"]),
        _agreement("lesions, true and on the FLAIR", "phantoms, made from T1w", lesions, made["lesions"]),
        _agreement("lesions, asked and on the FLAIR", "generated", asked, generated["lesions"]),
        _agreement("lesions, true and by ridge", "phantoms, scanned", lesions, reader(shown[0])),
        _agreement("lesions, asked and by ridge", "generated", asked, reader(flair)),
        _agreement("ventricles, true and on the FLAIR", "phantoms, made from T1w", [one["ventricles"] for one in truth],
                   made["ventricles"]),
        _agreement("ventricles, on T1w and FLAIR", "generated", beside["ventricles"], generated["ventricles"]),
    )  # fmt: skip


def _ridge(model: Brain) -> Callable[[Tensor], list[float]]:
    """A reader of lesions in ml from (n, 1, D, H, W) FLAIR volumes, which knows phantoms alone."""
    wishes = Wishes(modalities=(T1W, FLAIR), lesions_at_any_age=True)
    visits = [one.visits[0] for one in people(model.preset, _FITTED, _FITTED_FROM, Hospital(name="public"), wishes)]
    known = voxels(model, torch.stack([visit.images[FLAIR][None] for visit in visits]))
    truth = np.array([[visit.truth["lesions"]] for visit in visits])
    return lambda volumes: metrics.ridge(known, truth, voxels(model, volumes))[:, 0].tolist()


def measured(volumes: Tensor, modality: str, preset: Preset) -> dict[str, list[float]]:
    """Ventricles and lesions of (n, 1, D, H, W) volumes in ml of template space, as a hospital's `prepare` measures them."""
    affine = template(preset).affine
    rows = [tissues.volumes(on_grid(volume[0].numpy(), affine, tissues.GRID), modality, 1.0) for volume in volumes]
    return {"ventricles": [row.ventricles_ml for row in rows], "lesions": [row.lesion_ml or 0.0 for row in rows]}


def _agreement(what: str, who: str, asked: Sequence[float] | np.ndarray, seen: Sequence[float]) -> Agreement:
    return Agreement(what, who, metrics.correlation(asked, seen), tuple(map(float, asked)), tuple(seen))


def told(found: Told) -> list[str]:
    """The tables for a person."""
    lines = [*rows_of("unseen phantoms", found.ways)]
    lines += [f"{'':<36}{'':<26}{'r':>6}{'slope':>8}"]
    return lines + [f"  {row.what:<34}{row.people:<26}{row.r:>6.3f}{row.slope:>8.2f}" for row in found.agreements]


def rows_of(whose: str, ways: Sequence[Way]) -> list[str]:
    """How near to the true FLAIR, for a person."""
    rows = [f"  {row.way:<28}{row.gain:>6.2f}  ({row.low:.2f} to {row.high:.2f})" for row in ways]
    return [f"{FLAIR} of {whose}, decibels nearer to it than the public mean, 95 % interval", *rows]


def write(found: Told, out: Path) -> None:
    """The same for a program."""
    agreements = [{**asdict(row), "slope": row.slope} for row in found.agreements]
    tables = {"ways": [asdict(row) for row in found.ways], "agreements": agreements}
    write_atomically(out, (json.dumps(tables, indent=1) + "\n").encode())


def picture_of_loads(found: Told) -> bytes:
    """PNG: one generated person's FLAIR with ever more lesions asked for, and what the largest load changes."""
    shown = [(f"{load:.0f} ml", volume) for load, volume in zip(_LOADS, found.loaded[:, 0], strict=True)]
    return figures.planes(shown, [(f"{_LOADS[-1]:.0f} ml, less none", found.loaded[-1, 0] - found.loaded[0, 0])])


def picture(found: Told, person: int = 0) -> bytes:
    """PNG: one phantom's T1w, its FLAIR and the FLAIR made from the T1w, and the difference of the last two."""
    t1w, flair, made = (volumes[person, 0] for volumes in found.pictures)
    scans = [("T1w", t1w), ("FLAIR, scanned", flair), ("FLAIR, made from T1w", made)]
    return figures.planes(scans, [("difference", made - flair)])
