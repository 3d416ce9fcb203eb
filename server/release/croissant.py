"""The release as machine-learning tools read it: Croissant 1.1 with its Responsible AI keys and provenance, without addresses.

Formats: docs.mlcommons.org/croissant, specifications 1.1 and RAI 1.0. Paths are relative, so it works offline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from braing3n_core.plan import T1W, TrainingPlan
from server.release.cohort import Person, in_words
from server.release.edition import NOT_RECORDED, Edition
from server.release.shown import listed, modalities, sequences, white
from server.release.tables import as_json, licence

_TABLE = "participants.tsv"
_KEYS = {
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty", "fileObject",
    "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
}  # fmt: skip


def croissant(
    plan: TrainingPlan,
    edition: Edition,
    images: Mapping[str, str],
    people: Sequence[Person],
    tables: Mapping[str, bytes],
    columns: Mapping[str, str],
) -> bytes:
    """croissant.json. `images` are patterns of image files by modality, `columns` those of the table with their data types."""
    return as_json(
        {
            "@context": _context(),
            "@type": "sc:Dataset",
            "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
            "name": edition.name,
            "description": f"{in_words(people)}, skull-stripped, {sequences(people)}; "
                           "none is a scan of a person; not for diagnosis.",
            "license": "https://creativecommons.org/publicdomain/zero/1.0/" if plan.rehearsal else licence(plan),
            "url": f"urn:braing3n:{edition.name}",
            "creator": {"@type": "sc:Organization", "name": edition.issuer},
            "datePublished": edition.issued.isoformat(),
            "version": edition.version,
            "citeAs": f"{edition.name}, synthetic brains, plan {plan.digest[:16]}",
            "keywords": ["synthetic", "brain", "MRI", "not for diagnosis"],
            "isLiveDataset": False,
            **_responsible(plan, people),
            **_provenance(plan),
            "distribution": [
                {
                    "@type": "cr:FileObject", "@id": _TABLE, "name": _TABLE, "contentUrl": _TABLE,
                    "encodingFormat": "text/tab-separated-values", "sha256": hashlib.sha256(tables[_TABLE]).hexdigest(),
                },
                *(_images(name, pattern) for name, pattern in images.items()),
            ],
            "recordSet": [
                {
                    "@type": "cr:RecordSet", "@id": "participants", "name": "participants",
                    "description": "One row per synthetic person: what was requested of the generator.",
                    "key": {"@id": "participants/participant_id"},
                    "field": [_field(name, kind) for name, kind in columns.items()],
                },
            ],
        }
    )  # fmt: skip


def _images(modality: str, pattern: str) -> dict[str, object]:
    name, of = ("images", "") if modality == T1W else (f"images-{modality}", f", {modality} of the brains of the T1w")
    return {
        "@type": "cr:FileSet", "@id": name, "name": name, "includes": pattern,
        "encodingFormat": "application/gzip", "description": f"NIfTI-1 volumes, gzipped{of}",
    }  # fmt: skip


def _field(name: str, kind: str) -> dict[str, object]:
    return {
        "@type": "cr:Field", "@id": f"participants/{name}", "name": name, "dataType": kind,
        "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": name}},
    }  # fmt: skip


def _responsible(plan: TrainingPlan, people: Sequence[Person]) -> dict[str, object]:
    guarantee = (
        f"Differential privacy for one patient with all scans, at most epsilon {plan.privacy.epsilon:g}, "
        f"delta {plan.privacy.delta:g}; docs/privacy_certificate.json has what was spent."
        if plan.privacy.private
        else "No privacy guarantee."
    )
    shown = modalities(people)
    limits = "one sequence" if len(shown) == 1 else f"sequences are {listed(shown)}, tissues measured on T1w alone"
    source = "phantoms made by software" if plan.rehearsal else "scans that never left their hospitals"
    return {
        "rai:dataCollection": f"Synthetic: drawn from a generator that {len(plan.sites)} sites trained together on {source}.",
        "rai:dataCollectionType": ["Others"],
        "rai:dataUseCases": ["Developing and rehearsing methods; not diagnosis, not treatment, not re-identification."],
        "rai:dataLimitations": [f"Smoother than scans; {limits}; the mix of people was asked for, not observed."],
        "rai:dataBiases": ["Small groups of patients are drawn worse, and privacy noise makes that worse still."],
        "rai:personalSensitiveInformation": [f"No image is of a person. {guarantee}"],
        "rai:dataSocialImpact": "Methods can be developed where scans may not be shared; results need checking on patients.",
        "rai:dataPreprocessingProtocol": [
            f"Skull-stripped, registered to MNI152NLin2009aAsym, white matter scaled to {white(shown)}."
        ],
        "rai:dataManipulationProtocol": "Candidates that fail the gates in docs/gates.json were replaced by the next ones.",
        "rai:dataReleaseMaintenancePlan": f"Signed; withdrawn by signed notice. Anything beyond README.md: {NOT_RECORDED}.",
    }


def _provenance(plan: TrainingPlan) -> dict[str, object]:
    return {
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity", "name": f"braing3n {version('braing3n')}, plan {plan.digest}",
        },
        "prov:wasDerivedFrom": [{"@id": f"urn:braing3n:{plan.study}:{site.name}"} for site in plan.sites],
    }  # fmt: skip


def _context() -> dict[str, object]:
    """The standard's own names, in full: readers warn about a shorter one."""
    named: dict[str, object] = {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "cr": "http://mlcommons.org/croissant/",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "dct": "http://purl.org/dc/terms/",
        "description": {"@container": "@language"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "name": {"@container": "@language"},
        "prov": "http://www.w3.org/ns/prov#",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "sc": "https://schema.org/",
    }
    return named | {key: f"cr:{key}" for key in sorted(_KEYS)}
