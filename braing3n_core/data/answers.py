"""Phantom patients as a BIDS folder with its answer key: true factors in the tables, label maps in derivatives.

participants.tsv   what holds for the patient, and the first visit's volumes
sessions.tsv       age and volumes of each visit, where there are several
derivatives/labels/sub-*/[ses-*/]anat/*_dseg.nii.gz, dseg.tsv: what each voxel truly is
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from braing3n_core.data.anatomy import TABLE, anatomies
from braing3n_core.data.patient import BIDS_LABELS, LABELS, Person, Visit, Wishes, people
from braing3n_core.data.tables import write_table
from braing3n_core.data.template import template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import UsageError
from braing3n_core.models.presets import Preset
from braing3n_core.plan import Hospital
from braing3n_core.scratch import scratch

TRUTHS = ("ventricles", "lesions", "tumour_core", "oedema")  # of braing3n_core.data.patient.Visit, ml
Progress = Callable[[int, int], None]                        # done, total


def write_hospitals(
    out: Path, preset: Preset, patients: int, sites: int, seed: int, wishes: Wishes,
    progress: Progress | None = None, labels: Path | None = None,
) -> list[Path]:  # fmt: skip
    """`sites` hospitals of `patients` each under `out`, each with a contrast of its own, each there whole or not at all.

    With `labels`, a folder of label maps, patients have these heads in turn. Raises UsageError, DataRefused.
    """
    folders, heads = [], anatomies(labels, preset) if labels else []
    for place in range(sites):
        contrast = 0.0 if sites == 1 else 0.12 * (place / (sites - 1) - 0.5)
        hospital = Hospital(name=f"site-{place + 1:02d}", contrast=contrast, bias=0.03)
        folder = out / hospital.name
        if folder.exists():
            raise UsageError(f"{folder} is there already; name another folder")
        made = people(preset, patients, seed * 7919 + place, hospital, wishes, heads)
        write_people(folder, made, preset, _part_of(progress, place * patients, sites * patients))
        folders.append(folder)
    return folders


def _part_of(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total) if progress else None


def write_people(
    folder: Path, made: Iterable[Person], preset: Preset, done: Callable[[int], object] = lambda number: None
) -> None:
    """Write `made` as one hospital with its answer key; the folder is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch(".braing3n-phantoms-", folder.parent) as work:
        whole = work / "bids"
        (whole / "derivatives" / "labels").mkdir(parents=True)
        rows = []
        for number, person in enumerate(made, start=1):
            name = f"sub-ph{number:04d}"
            _person(whole, name, person, preset)
            first = person.visits[0]
            tumour = "yes" if person.tumour else "no"
            rows.append((name, f"{first.age:.1f}", person.sex, person.diagnosis, tumour, *_truths(first)))
            done(number)
        write_table(whole / "participants.tsv", ("participant_id", "age", "sex", "diagnosis", "tumour", *_columns()), rows)
        write_table(whole / "derivatives" / "labels" / TABLE, ("index", "name", "mapping"), _labels())
        _describe(whole, "braing3n phantoms", "raw")
        _describe(whole / "derivatives" / "labels", "what each voxel of the phantoms is", "derivative")
        os.replace(whole, folder)


def _person(whole: Path, name: str, person: Person, preset: Preset) -> None:
    several = len(person.visits) > 1
    for number, visit in enumerate(person.visits, start=1):
        _visit(whole, name, f"ses-{number}" if several else "", visit, preset)
    if several:
        rows = [(f"ses-{n}", f"{visit.age:.1f}", *_truths(visit)) for n, visit in enumerate(person.visits, start=1)]
        write_table(whole / name / f"{name}_sessions.tsv", ("session_id", "age", *_columns()), rows)


def _visit(whole: Path, name: str, session: str, visit: Visit, preset: Preset) -> None:
    affine = template(preset).affine
    stem = "_".join(part for part in (name, session) if part)
    anat, labels = (root / name / session / "anat" for root in (whole, whole / "derivatives" / "labels"))
    for folder in (anat, labels):
        folder.mkdir(parents=True)
    for modality, image in visit.images.items():
        write_volume(anat / f"{stem}_{modality}.nii.gz", image.numpy(), affine, descrip="braing3n phantom")
    write_volume(labels / f"{stem}_dseg.nii.gz", visit.labels.astype(np.float32), affine, descrip="braing3n phantom labels")


def _labels() -> list[tuple[str, str, str]]:
    return [(str(index), name, str(BIDS_LABELS[index])) for index, name in LABELS.items()]


def _columns() -> tuple[str, ...]:
    """`lesions` is also the plan's name of that variable; the others say that they are true, because they are measured too."""
    return tuple(name if name == "lesions" else f"true_{name}" for name in TRUTHS)


def _truths(visit: Visit) -> tuple[str, ...]:
    return tuple(f"{visit.truth[name]:.2f}" for name in TRUTHS)


def _describe(folder: Path, name: str, kind: str) -> None:
    about = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": kind, "License": "CC0",
             "GeneratedBy": [{"Name": "braing3n-sim phantom"}],
             "HowToAcknowledge": "Deformed from the MNI ICBM152 2009a template"}           # fmt: skip
    (folder / "dataset_description.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
