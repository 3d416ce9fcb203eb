"""The tables of a release: who is in it, what was asked for, and what every column means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Literal

from braing3n_core.models.brain import Condition
from braing3n_core.plan import T1W, Categorical, Continuous, TrainingPlan
from server.release.cohort import Person, Variable
from server.release.edition import NOT_RECORDED, Edition
from server.release.shown import by_visit, sequences

BIDS_VERSION = "1.11.1"
OLDEST_AGE = 89                                              # years; BIDS writes every age from here on as 89
BidsType = Literal["derivative", "raw"]
_DESCRIPTIONS = b"desc_id\tdescription\ndesc-synthetic\tmade by a generator; not a scan of any person\n"


def tables(
    plan: TrainingPlan, edition: Edition, people: Sequence[Person], measured: Mapping[str, Sequence[float]], kind: BidsType
) -> dict[str, bytes]:
    """The files of the dataset that are not images, by name."""
    names = [variable.name for variable in plan.variables]
    rows = [["participant_id", "species", *names, *(f"{name}_measured" for name in measured)]]
    shown = _shown(people)
    for i, person in enumerate(people):
        if person.first:
            asked = [
                shown[person.name] if variable.source == "modality" and shown[person.name] != T1W
                else _cell(variable, person.conditions.get(variable.name)) for variable in plan.variables
            ]  # fmt: skip
            rows.append([person.name, "homo sapiens", *asked, *(_measured(values[i]) for values in measured.values())])
    return {
        "dataset_description.json": as_json(_description(plan, edition, people, kind)),
        "participants.tsv": _tsv(rows),
        "participants.json": as_json(_columns(plan, measured, people)),
        **({"descriptions.tsv": _DESCRIPTIONS} if kind == "derivative" else {}),
        **_sessions(plan, people, measured),
    }


def _sessions(
    plan: TrainingPlan, people: Sequence[Person], measured: Mapping[str, Sequence[float]]
) -> dict[str, bytes]:
    """A table of visits for everybody who has more than one, and what its columns mean."""
    age = next((v for v in plan.variables if v.name == "age" and isinstance(v, Continuous)), None)
    tables: dict[str, list[list[str]]] = {}
    for i, person in enumerate(people):
        if person.session and person.modality == T1W:
            head = ["session_id", "years", *(["age"] if age else []), *(f"{name}_measured" for name in measured)]
            numbers = [f"{person.years:g}", *([_cell(age, person.now.get("age"))] if age else [])]
            rows = tables.setdefault(f"{person.name}/{person.name}_sessions.tsv", [head])
            rows.append([person.session, *numbers, *(_measured(values[i]) for values in measured.values())])
    if not tables:
        return {}
    about_all = _columns(plan, measured, people)
    columns = {name: about for name, about in about_all.items() if name == "age" or name.endswith("_measured")}
    known = {
        "session_id": {"Description": "A visit of a synthetic person"},
        "years": {"Description": "Since the first visit, as REQUESTED of the generator", "Units": "year"},
    }
    return {"sessions.json": as_json({**known, **columns}), **{name: _tsv(rows) for name, rows in tables.items()}}


def _tsv(rows: Sequence[Sequence[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def licence(plan: TrainingPlan) -> str:
    """SPDX name, or that there is none: real patients' controllers decide, nobody else."""
    return "CC0-1.0" if plan.rehearsal is not None else "No licence granted yet; ask the data controllers of the study"


def _description(plan: TrainingPlan, edition: Edition, people: Sequence[Person], kind: BidsType) -> dict[str, object]:
    private = plan.privacy.private
    return {
        "Name": f"{plan.study}: synthetic {sequences(people)} brains",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": kind,
        "License": licence(plan),
        **({"Authors": [edition.issuer]} if edition.issuer != NOT_RECORDED else {}),
        "HowToAcknowledge": f"Synthetic images of {edition.name}, plan {plan.digest[:12]}, in the space of ICBM152 2009a",
        "Keywords": ["synthetic", "not for diagnosis", "differential privacy" if private else "not private"],
        "GeneratedBy": [
            {
                "Name": "braing3n",
                "Version": version("braing3n"),
                "Description": f"Federated generator; plan {plan.digest}, mechanism {plan.privacy.mechanism}",
            }
        ],
        "SourceDatasets": [{"URL": f"urn:braing3n:{plan.study}:{site.name}"} for site in plan.sites],
    }


def _shown(people: Sequence[Person]) -> dict[str, str]:
    """Person -> the modalities of each visit: T1w, or T1w+FLAIR."""
    return {people[place].name: "+".join(visit) for visit in by_visit(people) for place in visit.values()}


def _columns(
    plan: TrainingPlan, measured: Mapping[str, Sequence[float]], people: Sequence[Person]
) -> dict[str, object]:
    several = sorted(set(_shown(people).values()) - {T1W})
    columns: dict[str, object] = {
        "participant_id": {"Description": "A synthetic person; linked to no patient"},
        "species": {"Description": "What the images show, though nobody was scanned"},
    }
    for variable in plan.variables:
        about: dict[str, object] = {"Description": f"REQUESTED of the generator, not observed: {variable.name}"}
        if isinstance(variable, Continuous):
            about |= {"Units": variable.unit}
            if variable.name == "age":
                about["Description"] = f"{about['Description']}; {OLDEST_AGE}: this or older, exact in each image's JSON file"
        else:
            levels = {_plain(level): _LEVELS.get((variable.name, level), _plain(level)) for level in variable.levels}
            both = several if variable.source == "modality" else []
            about["Levels"] = levels | dict.fromkeys(both, "an image of each, of one anatomy, at every visit")
        columns[variable.name] = about
    for name in measured:
        unit = next((v.unit for v in plan.variables if isinstance(v, Continuous) and v.name == name), "")
        on = "T1w" if several else "image"
        columns[f"{name}_measured"] = {"Description": f"{name} as measured on the synthetic {on}", "Units": unit}
    return columns


_LEVELS = {("sex", "F"): "female", ("sex", "M"): "male"}


def _cell(variable: Variable, value: Condition) -> str:
    if value is None:
        return "n/a"
    if isinstance(variable, Categorical):
        return _plain(str(value))
    if variable.name == "age" and float(value) >= OLDEST_AGE:
        return str(OLDEST_AGE)
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _measured(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "n/a"


def _plain(text: str) -> str:
    """No tab or line break can get from a plan into a table."""
    return " ".join(text.split()) or "n/a"


def as_json(value: object) -> bytes:
    """A JSON file as this release writes them: readable, ASCII, no NaN."""
    return (json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()
