"""Who was in the training data? A finished rehearsal attacked with all that an insider could wish for: its own phantoms.

Members are the phantoms that the sites trained on. Outsiders, and the group that sets the threshold, are other phantoms of the
same hospitals, drawn after the fact: nothing but training sets them apart, so a difference is what training gave away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from braing3n_core.data.cohort import Patient, load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import PlanRefused
from braing3n_core.likeness import likeness
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import Preset
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.settings import Settings
from braing3n_core.training import draw_rows, prepare, row_loss
from privacy.membership import Membership, membership
from server.release.publish import RELEASE
from server.release.stages import finished_run

Say = Callable[[str], None]
DRAWS: Final = 16                                            # of noise and time for each patient, the same for all
_OTHERS: Final = 1_000_003                                   # added to the plan's seed: phantoms that nobody trained on
_LOWEST: Final = 0.01                                        # false-positive rate, where the reference group is large enough


@dataclass(frozen=True)
class Attacked:
    """One attack on one thing that training made."""

    attack: str
    members: int
    outsiders: int
    found: Membership

    def in_words(self) -> str:
        """Members given away beside the control and what guessing gives, with 95 % intervals."""
        found, verdict = self.found, "LEAKS" if self.found.leaks else "no more than the control"
        rates = (f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]" for rate in (found.attack, found.control, found.auc))
        attack, control, auc = rates
        return f"  {self.attack}: members {attack}, control {control}, guessing {found.baseline:.3f}; AUC {auc}: {verdict}"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self) | {"leaks": self.found.leaks, "risk": self.found.risk}


def attack_run(run: Path, say: Say) -> tuple[Attacked, ...]:
    """Attack the trained generator and the released volumes of a finished rehearsal.

    Raises PlanRefused if its hospitals are not phantoms: on patients nobody may try.
    """
    plan, model = finished_run(run, load_prior)
    if plan.rehearsal is None:
        raise PlanRefused("this run is no rehearsal; who took part in it is nobody's to find out")
    settings = Settings(plan, run.expanduser().absolute(), ())
    members = [patient for name in _names(plan) for patient in _members(settings, name)]
    others = [patient for name in _names(plan) for patient in _strangers(settings, name, say)]
    outsiders, reference = others[::2], others[1::2]
    groups = [members, outsiders, reference]
    say(f"{len(members)} members, {len(outsiders)} outsiders, {len(reference)} to set thresholds")
    prior = load_prior(plan)
    say("losses of all of them under the generator and under the public prior")
    found = [_attacked("generator, loss below the public prior's", [gains(model, prior, group) for group in groups])]
    released = _released(run / RELEASE)
    if len(released):
        say(f"likeness of all of them to {len(released)} released images")
        alike = [_likest(group, released, plan.model) for group in groups]
        found.append(_attacked("released set, likest image", alike))
    return tuple(found)


def in_words(attacked: Sequence[Attacked]) -> Iterator[str]:
    """The table for a person."""
    yield "membership, share recognised at few false alarms, 95 % intervals:"
    yield from (one.in_words() for one in attacked)
    yield "an attack that finds nothing proves nothing; one that leaks at this epsilon says that something is wrong"


def gains(model: Brain, prior: Brain, patients: Sequence[Patient]) -> np.ndarray:
    """(n,) by how much training lowered each patient's loss: high for "was in".

    The loss under the public prior takes out how hard a patient is (Watson et al., arXiv 2111.08440); draws are the same for
    both networks and all patients.
    """
    return np.array([_loss(prior, patient) - _loss(model, patient) for patient in patients])


@torch.no_grad()
def _loss(model: Brain, patient: Patient) -> float:
    generator = torch.Generator().manual_seed(0)
    rows = draw_rows("generator", prepare("generator", model, patient.scans).tensors, model, DRAWS, generator)
    return float(row_loss("generator")(model, rows).mean())


def _attacked(name: str, scores: Sequence[np.ndarray]) -> Attacked:
    members, outsiders, reference = scores
    return Attacked(name, len(members), len(outsiders), membership(members, outsiders, reference, lowest(len(reference))))


def lowest(reference: int) -> float:
    """The lowest false-positive rate for which `reference` patients can set a threshold, 1 % at least."""
    return max(_LOWEST, 1 / reference)


def _names(plan: TrainingPlan) -> list[str]:
    return [site.name for site in plan.sites]


def _members(settings: Settings, name: str) -> tuple[Patient, ...]:
    return load_cohort(settings.bids(name), settings.plan, settings.folder(name) / "cache").training


def _strangers(settings: Settings, name: str, say: Say) -> tuple[Patient, ...]:
    """Twice as many phantoms of the same hospital as it has, kept under <run>/strangers."""
    plan, folder = settings.plan, settings.out / "strangers"
    say(f"{name}: phantoms that nobody trained on")
    twice = [site.model_copy(update={"patients": 2 * site.patients}) for site in plan.sites]
    other = plan.but(seed=plan.seed + _OTHERS, sites=[site.model_dump() for site in twice])
    write_hospital(folder / name, other.site(name), other)
    return load_cohort(folder / name, plan, folder / f".{name}-cache").patients


def _released(folder: Path) -> torch.Tensor:
    """(c, 1, D, H, W), empty without a release."""
    images = sorted(folder.glob("sub-*/**/anat/*_T1w.nii.gz"))
    volumes = [torch.from_numpy(read_volume(path)[0])[None] for path in images]
    return torch.stack(volumes) if volumes else torch.empty(0)


def _likest(patients: Sequence[Patient], released: torch.Tensor, preset: Preset) -> np.ndarray:
    """(n,) the greatest likeness of any scan of each patient to any released image."""
    scans = torch.stack([scan.volume for patient in patients for scan in patient.scans])
    best = likeness(scans, released, preset).max(1)
    ends = np.cumsum([len(patient.scans) for patient in patients])
    return np.array([part.max() for part in np.split(best, ends[:-1])], np.float64)
