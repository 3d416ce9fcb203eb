"""What a report is made of: numbers and pictures that others computed, each with its unit, its baseline or its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from braing3n_core.errors import GateBlocked
from braing3n_core.plan import TrainingPlan
from privacy.events import Event, SampledGaussian, SecureSummed
from privacy.witness import accounts
from server.fit import Reading
from server.release.anatomy import Findings
from server.release.cohort import Person
from server.release.edition import Edition
from server.release.gates import Gate

YEARS = "years"                                              # since a first visit: the name of a sweep over visits


@dataclass(frozen=True)
class Quality:
    """One number on quality beside its baseline, three times. None: not measured, and `note` says why."""

    name: str
    unit: str
    better: Literal["higher", "lower", "closer"]             # closer: to the baseline
    baseline_name: str
    baseline: float | None
    prior: float | None
    private: float | None
    non_private: float | None
    note: str = ""


@dataclass(frozen=True)
class StagePrivacy:
    """The noised steps of one stage at one site; of secure sums, the noise of the sum."""

    stage: str
    noise_multiplier: float
    sample_rate: float
    steps: int


@dataclass(frozen=True)
class SitePrivacy:
    """What one site's patients spent, over everything that left the site, and what was agreed. Infinity: no guarantee."""

    site: str
    epsilon: float
    agreed: float
    delta: float
    epsilon_rdp: float                                       # Renyi accounting's looser bound
    stages: tuple[StagePrivacy, ...]
    events: tuple[Event, ...] = ()                           # that the numbers were computed from
    epsilon_pld: float | None = None                         # a second library's bound; None where it knows none

    def __post_init__(self) -> None:
        told = {"epsilon": self.epsilon, "agreed epsilon": self.agreed, "RDP bound": self.epsilon_rdp}
        for name, value in (told if self.epsilon_pld is None else told | {"PLD bound": self.epsilon_pld}).items():
            if not value >= 0:
                raise GateBlocked(f"{self.site}: {name} is {value}, so what was spent is unknown; restore the site's ledger")
        if not 0 < self.delta < 1:
            raise GateBlocked(f"{self.site}: delta is {self.delta}, it must lie between 0 and 1; correct the plan")


def site_privacy(site: str, events: Sequence[Event], agreed: float, delta: float) -> SitePrivacy:
    """The privacy row of a site from its ledger's events, every one of them counted."""
    steps: dict[tuple[str, float, float], int] = {}
    for event in events:
        match event:
            case SampledGaussian():
                key = (event.stage, event.noise_multiplier, event.sample_rate)
            case SecureSummed():
                key = (event.stage, math.sqrt(event.noise_variance) / event.l2_bound, event.sample_rate)
            case _:
                continue
        steps[key] = steps.get(key, 0) + event.steps
    stages = tuple(StagePrivacy(stage, sigma, rate, count) for (stage, sigma, rate), count in steps.items())
    spent = accounts(events, delta)
    return SitePrivacy(site, spent.claim, agreed, delta, spent.renyi, stages, tuple(events), spent.witness)


@dataclass(frozen=True)
class Sweep:
    """One condition moved while noise and everything else stay: (n, 1, D, H, W) volumes, one per value."""

    name: str
    unit: str
    values: tuple[float, ...]
    volumes: Tensor
    measured: tuple[float, ...]                              # ventricles of each volume, ml
    held: str                                                # what was held, in words

    @property
    def title(self) -> str:
        """Above the pictures."""
        return "One synthetic person over the years" if self.name == YEARS else f"{self.name.capitalize()} sweep"


@dataclass(frozen=True)
class Control:
    """What was asked for against what was measured on the synthetic images."""

    name: str
    unit: str
    requested: tuple[float, ...]
    measured: tuple[float, ...]


@dataclass(frozen=True)
class ReleaseInputs:
    """Everything the report shows. `rounds` are rows with `stage`, `round` and `epsilon` (site -> spent so far)."""

    plan: TrainingPlan
    people: Sequence[Person]                                 # one per image
    volumes: Tensor                                          # (n, 1, D, H, W)
    age_sweep: Sweep | None = None
    ventricle_sweep: Sweep | None = None
    visits: Sweep | None = None                              # the first synthetic person who has several
    control: Control | None = None
    panel: Sequence[Quality] = ()
    privacy: Sequence[SitePrivacy] = ()
    rounds: Sequence[Mapping[str, object]] = ()
    fits: Sequence[Reading] = ()                             # how well the model fitted the sites, as they told it
    provenance: Mapping[str, str] = field(default_factory=dict)
    gates: Sequence[Gate] = ()
    findings: Sequence[Findings] = ()                        # one per image
    edition: Edition | None = None

    @property
    def sweeps(self) -> list[Sweep]:
        """Those that there are."""
        return [sweep for sweep in (self.age_sweep, self.ventricle_sweep, self.visits) if sweep]


def finite(value: float | None) -> float | None:
    """The value, or None if it is no number."""
    return value if value is not None and math.isfinite(value) else None
