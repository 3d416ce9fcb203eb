"""The plan: one frozen document that says what is trained, on what, by whom, at what privacy cost, and what is released.

A plan is a TOML file. Its digest is SHA-256 over its canonical JSON, so two files that say the same have one digest.
A plan with a `[rehearsal]` table describes phantom hospitals and is what `braing3n-sim` calls a recipe.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from braing3n_core.budget import Privacy as Privacy
from braing3n_core.budget import SecureSum as SecureSum
from braing3n_core.cohort_spec import T1W as T1W
from braing3n_core.cohort_spec import Cell as Cell
from braing3n_core.cohort_spec import Census as Census
from braing3n_core.cohort_spec import Release as Release
from braing3n_core.cohort_spec import moved_latents, refuse_what_cannot_be_shown
from braing3n_core.errors import PlanRefused
from braing3n_core.frozen import Frozen as Frozen
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.stage import Fraction as Fraction
from braing3n_core.stage import Learns as Learns
from braing3n_core.stage import Stage as Stage
from braing3n_core.stage import StageName as StageName

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
PresetName = Literal["tiny", "small", "base"]
WITH_PRIOR: tuple[PresetName, ...] = ("tiny",)               # presets whose prior is in braing3n_core/weights
SEX = ("F", "M")


class Continuous(Frozen):
    """A number with a unit and a range. Values outside the range are impossible and exclude the patient."""

    kind: Literal["continuous"]
    name: Name
    unit: str
    low: float
    high: float
    source: Literal["participants", "measured"] = "participants"

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"variable {self.name}: low={self.low} must be below high={self.high}")
        return self


class Categorical(Frozen):
    """One of a closed list of levels."""

    kind: Literal["categorical"]
    name: Name
    levels: Annotated[tuple[str, ...], Field(min_length=1)]
    source: Literal["participants", "modality"] = "participants"


Variable = Annotated[Continuous | Categorical, Field(discriminator="kind")]

DEFAULT_VARIABLES: tuple[Continuous | Categorical, ...] = (
    Continuous(kind="continuous", name="age", unit="year", low=18.0, high=95.0),
    Categorical(kind="categorical", name="sex", levels=SEX),
    Categorical(
        kind="categorical",
        name="diagnosis",
        levels=("healthy", "dementia", "depression", "multiple-sclerosis"),
    ),
    Categorical(kind="categorical", name="modality", levels=("T1w",), source="modality"),
    Continuous(kind="continuous", name="ventricles", unit="ml", low=0.0, high=120.0, source="measured"),
    Continuous(kind="continuous", name="lesions", unit="ml", low=0.0, high=60.0),
)


class Site(Frozen):
    """One hospital as the plan knows it. `patients` is DECLARED: a public constant, never counted from the data."""

    name: Name
    patients: PositiveInt


class Data(Frozen):
    """How every site turns a scan into a volume on the plan's grid."""

    registration: Literal["affine", "none"] = "affine"
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2       # part of the patients never trained on


class Aggregate(Frozen):
    """How a round's updates become one change. `norm_bound` bounds each site's L2 norm first, whatever the rule."""

    rule: Literal["mean", "median", "trimmed-mean"] = "mean"
    trim: PositiveInt = 1                  # trimmed-mean: sites left out at each end, number by number
    norm_bound: PositiveFloat | None = None


class Optimizer(Frozen):
    """What the server does with that change: server/stepper.py. Left out, it is added as it is."""

    kind: Literal["momentum", "adam", "yogi"]
    rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    memory: Annotated[float, Field(gt=0, lt=1)] = 0.99        # of the squared change (beta 2)
    floor: PositiveFloat = 1e-3                               # added to its root, so that small changes stay small (tau)


class Federation(Frozen):
    """How the server waits, and what it makes of the replies. Quorum is the fewest usable replies that make a round."""

    quorum: PositiveInt
    deadline_s: PositiveFloat
    aggregate: Aggregate | None = None     # the mean weighted by declared patients
    optimizer: Optimizer | None = None

    @model_validator(mode="after")
    def _something_is_left_after_trimming(self) -> Self:
        if self.aggregate and self.aggregate.rule == "trimmed-mean" and not self.quorum > 2 * self.aggregate.trim:
            raise ValueError(f"quorum={self.quorum} must be more than twice trim={self.aggregate.trim}")
        return self

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What nobody asked for is not written, so a plan without it keeps the digest it had."""
        return {key: value for key, value in handler(self).items() if value is not None}


class Hospital(Frozen):
    """How one phantom hospital differs from the population the public prior was trained on. All zero: not at all."""

    name: Name
    contrast: float = 0.0                  # added to the grey/white intensity ratio
    bias: float = 0.0                      # extra receive-field amplitude, fraction of the signal
    ageing: float = 0.0                    # added to the slope of ventricle size on age
    disease: float = 0.0                   # added to the effect of dementia on ventricle size
    folding: Annotated[float, Field(ge=0)] = 0.0              # mm of extra deformation at the scale of gyri


class Rehearsal(Frozen):
    """Phantom hospitals in place of real ones. A real site refuses a plan that has this table."""

    hospitals: tuple[Hospital, ...] = ()
    compare_non_private: bool = True       # also train without privacy, to show what privacy costs
    visits: PositiveInt = 1                # of every patient
    years: PositiveFloat = 1.0             # between two of them
    tumours: Annotated[float, Field(ge=0, le=1)] = 0.0        # share of patients who have one
    note: str = ""

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What nobody asked for is not written, so a recipe without it keeps the digest it had."""
        unset = {"visits": 1, "years": 1.0, "tumours": 0.0}
        return {key: value for key, value in handler(self).items() if key not in unset or value != unset[key]}


class TrainingPlan(Frozen):
    """What sites approve. Everything that decides what leaves a hospital, and what it costs, is in here."""

    study: Name
    question: str = ""
    seed: int
    preset: PresetName = "tiny"
    start: Literal["prior", "scratch"] = "prior"             # of training: the shipped prior, or weights drawn from the seed
    quantizer: Annotated[str, Field(pattern=r"^(none|fsq:([2-9]|[1-9][0-9]{1,2}))$")] = "none"  # levels of a discrete latent
    variables: tuple[Variable, ...] = DEFAULT_VARIABLES
    data: Data = Data()
    sites: Annotated[tuple[Site, ...], Field(min_length=1)]
    privacy: Privacy
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    census: Census | None = None
    federation: Federation
    release: Release
    rehearsal: Rehearsal | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        _refuse_twins("site", [site.name for site in self.sites])
        names = [stage.name for stage in self.stages]
        trained: dict[str, str] = {stage.name: stage.trainable for stage in self.stages}
        _refuse_twins("stage", names)
        _refuse_twins("variable", [variable.name for variable in self.variables])
        total = sum(stage.share for stage in self.stages) + (self.census.share if self.census else 0)
        if not abs(total - 1) < 1e-9:
            raise ValueError(f"the stages' shares{', census included,' if self.census else ''} add up to {total:g}; "
                             "they must add up to 1")  # fmt: skip
        if not self.federation.quorum <= len(self.sites):
            raise ValueError(f"quorum={self.federation.quorum} is more than the {len(self.sites)} sites of the plan")
        if self.privacy.mechanism == "non-private" and self.rehearsal is None:
            raise ValueError('mechanism "non-private" is for rehearsals only; choose "local" and an epsilon')
        steps: dict[str, int] = {stage.name: stage.local_steps for stage in self.stages}
        aggregated = self.federation.aggregate is not None
        self.privacy.refuse_what_cannot_be_summed(len(self.sites), self.federation.quorum, steps, aggregated)
        if self.spreads and self.start != "prior":
            raise ValueError('stage spread is told beside the prior\'s people; write start = "prior", or leave it out')
        if self.spreads and "generator" in names[names.index("spread") :]:
            raise ValueError("stage spread measures how far people lie from the generator's mean; put it after stage generator")
        if (self.release.exact or self.spreads) and (moved := moved_latents(trained)):
            constant = "release.exact" if self.release.exact else "stage spread"
            raise ValueError(f"stage {moved} moves the latents that {constant} has public constants of; "
                             "leave one of them out, or train a group of the decoder")  # fmt: skip
        if self.release.exact and (self.start != "prior" or self.levels):
            raise ValueError('release.exact reads volumes off the prior\'s continuous latents; write start = "prior" and '
                             'quantizer = "none", or leave it out')  # fmt: skip
        if self.longitudinal and self.start != "prior":
            raise ValueError('visits need the trajectory beside the prior; write start = "prior", or ask for one visit')
        refuse_what_cannot_be_shown(self.modalities, self.start, trained)
        if self.start == "prior" and self.preset not in WITH_PRIOR:
            raise ValueError(f'no prior ships for preset {self.preset}; write start = "scratch", or take {WITH_PRIOR[0]}')
        known = {variable.name for variable in self.variables}
        for name in self.release.guidance_of.keys() - known:
            raise ValueError(f"guidance_of names {name!r}, which the plan does not declare{_near(name, known)}")
        for name in set(self.census.variables if self.census else ()) - known:
            raise ValueError(f"the census counts {name!r}, which the plan does not declare{_near(name, known)}")
        if self.census and self.privacy.secure_sum:
            raise ValueError('a plan with secure sums takes no census; leave [census] out, or choose mechanism "local"')
        if self.release.follow == "census" and not self.census:
            raise ValueError('release.follow is "census", and the plan takes none; add [census], or follow "cells"')
        for cell in self.release.cells:
            for name in cell.conditions.keys() - known:
                raise ValueError(f"release asks for condition {name!r}, which the plan does not declare{_near(name, known)}")
        if self.rehearsal:
            for hospital in self.rehearsal.hospitals:
                if hospital.name not in {site.name for site in self.sites}:
                    raise ValueError(f"phantom hospital {hospital.name!r} is not one of the plan's sites")
        return self

    @property
    def model(self) -> Preset:
        """The sizes behind the preset's name."""
        return PRESETS[self.preset]

    @property
    def levels(self) -> int | None:
        """Levels of a discrete latent; None where latents stay continuous."""
        _, _, levels = self.quantizer.partition(":")
        return int(levels) if levels else None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What people of the release have, and hospitals' scans are read of besides: T1w, then what any cell asks for."""
        return (T1W, *sorted({name for cell in self.release.cells for name in cell.modalities} - {T1W}))

    @property
    def longitudinal(self) -> bool:
        """Whether anything of this plan is about several visits of one person."""
        return any(stage.name == "trajectory" for stage in self.stages) or any(cell.visits > 1 for cell in self.release.cells)

    @property
    def spreads(self) -> bool:
        """Whether hospitals say how far apart people are."""
        return any(stage.name == "spread" for stage in self.stages)

    @property
    def parts(self) -> tuple[str, ...]:
        """What this plan's model has beside the prior's networks, named as in `models.brain.Brain`."""
        wanted = {"trajectory": self.longitudinal, "spread": self.spreads, "steering": self.release.exact}
        return (*(part for part, needed in wanted.items() if needed), *self.modalities[1:])

    def stage(self, name: str) -> Stage:
        """The stage called `name`. Raises PlanRefused if the plan has none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise PlanRefused(f"the plan has no stage {name!r}; it has {', '.join(s.name for s in self.stages)}")

    def site(self, name: str) -> Site:
        """The site called `name`. Raises PlanRefused if the plan has none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise PlanRefused(f"the plan has no site {name!r}; it has {', '.join(s.name for s in self.sites)}")

    def canonical(self) -> str:
        """The plan as canonical JSON: sorted keys, no spaces. Law: from_json(canonical()) == self."""
        tables = self.model_dump(mode="json")
        for key, unset in (("start", "prior"), ("quantizer", "none")):
            if tables[key] == unset:
                del tables[key]                              # plans written before the key keep their digest
        if self.census is None:
            del tables["census"]
        if not self.privacy.vote_epsilon:
            del tables["privacy"]["vote_epsilon"], tables["privacy"]["vote_rounds"]
        return json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, hex. What a site approves and every message names."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> TrainingPlan:
        """Read a canonical plan. Raises PlanRefused with the first fault in words."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PlanRefused(in_words(error, cls)) from error

    @classmethod
    def load(cls, path: Path) -> TrainingPlan:
        """Read a plan from TOML. Raises PlanRefused with what is wrong, why, and the nearest known key."""
        try:
            tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PlanRefused(f"no plan at {path}; name a TOML file, for example simulations/recipes/smoke.toml") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PlanRefused(f"{path} is not readable as TOML ({error}); correct it and run again") from error
        # Strict models take a TOML array as a tuple only through JSON; dates and NaN are not plan values.
        try:
            return cls.from_json(json.dumps(tables))
        except (TypeError, PlanRefused) as error:
            raise PlanRefused(f"{path}: {error}") from error

    def but(self, **changes: Any) -> TrainingPlan:  # noqa: ANN401 - the values are checked by the model itself
        """This plan with top-level tables replaced, validated again."""
        tables = {name: getattr(self, name) for name in type(self).model_fields} | changes
        return type(self).from_json(json.dumps(tables, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not a plan value")


def _refuse_twins(kind: str, names: Sequence[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"two {kind}s are called {twins[0]!r}; each needs its own name")


def _near(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _keys(model: type[BaseModel]) -> set[str]:
    """Every key of a model and of the models inside it."""
    found: set[str] = set()
    pending: list[Any] = [model]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                if name not in found:
                    found.add(name)
                    pending.append(field.annotation)
        else:
            pending.extend(getattr(kind, "__args__", ()))
    return found


def in_words(error: ValidationError, model: type[BaseModel], what: str = "plan") -> str:
    """The first fault of a validation as one line: where, what, what next. `what` is the document that was read."""
    # A misspelt key is also a missing one; its spelling is what the writer needs to hear of.
    fault = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in fault["loc"] if part not in ("continuous", "categorical")) or what
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        return f"{where} is not a key of a {what}{_near(key, _keys(model))}; remove it or correct its spelling"
    message = re.sub(r"^(Value error|Assertion failed), ", "", fault["msg"])
    given = "" if fault["type"] in ("missing", "value_error") else f", got {str(fault['input'])[:60]}"
    return f"{where}: {message}{given}; correct the {what} and run again"
