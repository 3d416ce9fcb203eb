"""metrics.json: every number that the report shows, for programs."""

from __future__ import annotations

import math
from dataclasses import asdict

from braing3n_core.plan import Categorical
from server.release.inputs import ReleaseInputs
from server.release.shown import modalities
from server.release.tables import as_json


def metrics_json(inputs: ReleaseInputs) -> bytes:
    """The numbers, each with its unit or its name. Infinity and NaN, which JSON does not know, are words or null."""
    privacy = [
        {key: value for key, value in asdict(row).items() if key != "events"}
        for row in sorted(inputs.privacy, key=lambda row: row.site)
    ]
    return as_json(
        _plain(
            {
                "release": inputs.edition.name if inputs.edition else inputs.plan.study,
                "plan": inputs.plan.digest,
                "images": len(inputs.people),
                "people": len({person.name for person in inputs.people}),
                **_by_modality(inputs),
                "privacy": {
                    "unit": "one patient with all scans",
                    "neighbours": "add or remove one patient",
                    "mechanism": inputs.plan.privacy.mechanism,
                    "accountant": "PRV over all events of a site's ledger, votes added; epsilon_pld is a second library's, "
                    "epsilon_rdp is a looser bound",
                    "sites": privacy,
                },
                **({"fit": [asdict(row) for row in inputs.fits]} if inputs.fits else {}),
                "gates": [gate.as_json() for gate in inputs.gates],
                "quality": [asdict(row) for row in inputs.panel],
                "sweeps": [
                    {"name": s.name, "unit": s.unit, "values": s.values, "ventricles_ml": s.measured} for s in inputs.sweeps
                ],
                "control": asdict(inputs.control) if inputs.control else None,
                "subgroups": subgroups(inputs),
            }
        )
    )


def _by_modality(inputs: ReleaseInputs) -> dict[str, dict[str, int]]:
    """How many images of each modality, where there are several."""
    shown = [person.modality for person in inputs.people]
    names = modalities(inputs.people)
    return {"modalities": {name: shown.count(name) for name in names}} if len(names) > 1 else {}


def subgroups(inputs: ReleaseInputs) -> dict[str, dict[str, int]]:
    """How many people of the release have each level of each categorical variable; levels that nobody has are there with 0."""
    found = {}
    for variable in inputs.plan.variables:
        if isinstance(variable, Categorical) and len(variable.levels) > 1:
            asked = [person.conditions.get(variable.name) for person in inputs.people if person.first]
            found[variable.name] = {level: asked.count(level) for level in variable.levels}
            found[variable.name] |= {"not requested": asked.count(None)} if None in asked else {}
    return found


def _plain(value: object) -> object:
    match value:
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if math.isinf(value):
            return "infinite"
        case float() if math.isnan(value):
            return None
        case _:
            return value
