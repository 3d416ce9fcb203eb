"""The release as a BIDS dataset: every image marked as synthetic, every file in SHA256SUMS, whole or absent."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from braing3n_core.data.template import SPACE, template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import GateBlocked, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.manifest import SUMS, digests_of, sums
from braing3n_core.models.brain import Condition
from braing3n_core.plan import T1W, TrainingPlan
from braing3n_core.scratch import scratch
from server.release.card import CROISSANT
from server.release.card import documents as card
from server.release.cohort import Person
from server.release.croissant import croissant
from server.release.edition import Edition
from server.release.evidence import PLAN_FILE
from server.release.shown import modalities
from server.release.tables import BidsType, as_json, tables

_SPACE_URL = "http://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009"
_DESCRIP_BYTES = 79                                          # what the NIfTI-1 field holds
_SHOWN = {
    T1W: "T1-weighted brain made by a generator",
    "FLAIR": "FLAIR made by a generator, of the same brain as the T1w beside it",
}
_MIDDLE = {"derivative": f"_space-{SPACE}_desc-synthetic", "raw": "_rec-synthetic"}


def image_path(person: Person, kind: BidsType = "derivative") -> str:
    """Where this image lies inside the release, POSIX."""
    folder = f"{person.name}/{person.session}" if person.session else person.name
    return f"{folder}/anat/{person.visit}{_MIDDLE[kind]}_{person.modality}.nii.gz"


def write_dataset(
    out: Path,
    plan: TrainingPlan,
    edition: Edition,
    people: Sequence[Person],
    volumes: Tensor,
    *,
    numbers: Sequence[int] | None = None,
    measured: Mapping[str, Sequence[float]] | None = None,
    documents: Mapping[str, bytes] | None = None,
    kind: BidsType = "derivative",
    replace: bool = False,
) -> Path:
    """Write the dataset to `out`; `volumes` is (n, 1, D, H, W), `documents` are further files by their path inside it.

    Guarantee: `out` appears whole, with every file on disk, or not at all; an existing release is refused unless `replace`
    is given, and then it is there until the new one takes its name. The same arguments give the same bytes. `measured` are
    columns of numbers measured on the synthetic images, one per image; `numbers` say which of the seed's people each is.
    """
    _refuse_broken(plan, people, volumes, measured or {})
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch(".braing3n-release-", out.parent) as work:
        _put_back(out, work)
        refuse_to_overwrite(out, replace)
        whole = work / "whole"
        (whole / "docs").mkdir(parents=True)
        rows = tables(plan, edition, people, measured or {}, kind)
        described = {
            **rows,
            **card(plan, edition, people, kind),
            CROISSANT: croissant(
                plan, edition, _patterns(people, kind), people, rows, _kinds(rows["participants.tsv"])
            ),
            PLAN_FILE: plan.canonical().encode() + b"\n",
        }
        for name, content in {**described, **(documents or {})}.items():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(whole / name, content)
        for place, person in enumerate(people):
            _write_person(whole, plan, person, numbers[place] if numbers else place, volumes[place, 0], kind)
        write_atomically(whole / SUMS, sums(digests_of(whole)))
        _take_place(whole, out, work)
    return out


def _patterns(people: Sequence[Person], kind: BidsType) -> dict[str, str]:
    """Of the image files, by modality."""
    sessions = {bool(person.session) for person in people}
    folder = "sub-*/ses-*/anat" if sessions == {True} else "sub-*/anat" if sessions == {False} else "sub-*/**/anat"
    return {name: f"{folder}/*{_MIDDLE[kind]}_{name}.nii.gz" for name in modalities(people)}


def _kinds(table: bytes) -> dict[str, str]:
    """Column of a table -> Croissant's data type; one "n/a" makes a column text."""
    names, *rows = (line.split("\t") for line in table.decode().splitlines())
    return {name: "sc:Float" if all(map(_is_number, cells)) else "sc:Text" for name, *cells in zip(names, *rows, strict=True)}


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _write_person(root: Path, plan: TrainingPlan, person: Person, number: int, volume: Tensor, kind: BidsType) -> None:
    image = root / image_path(person, kind)
    image.parent.mkdir(parents=True, exist_ok=True)          # a visit has an image of each modality
    seed = plan.release.seed
    write_volume(
        image,
        volume.detach().cpu().numpy(),
        template(plan.model).affine,
        descrip=f"SYNTHETIC {plan.study} seed {seed} image {number}"[:_DESCRIP_BYTES],
        intent_name="SYNTHETIC",
    )
    sidecar = {
        "Description": f"Synthetic {_SHOWN[person.modality]}; not a scan of any person; not for diagnosis",
        "SkullStripped": True,
        "SyntheticData": True,
        "SpatialReference": _SPACE_URL,
        "RequestedConditions": _requested(plan, person),
        "Seed": seed,
        "Index": number,
        **({"YearsSinceFirstVisit": person.years} if person.session else {}),
        "SamplerSteps": plan.release.steps,
        "Guidance": plan.release.weights,
        "Study": plan.study,
        "PlanDigest": plan.digest,
    }
    write_atomically(image.with_name(image.name.removesuffix(".nii.gz") + ".json"), as_json(sidecar))


def _requested(plan: TrainingPlan, person: Person) -> dict[str, Condition]:
    """The person's conditions; a variable that names the modality names that of this image."""
    named = {variable.name for variable in plan.variables if variable.source == "modality"} & person.conditions.keys()
    return person.conditions if person.modality == T1W else person.conditions | dict.fromkeys(named, person.modality)


def refuse_to_overwrite(out: Path, replace: bool) -> None:
    """Raise UsageError if `out` is there, unless it is a release of ours and `replace` is asked for."""
    if not (out.exists() or out.is_symlink()):
        return
    if not replace:
        raise UsageError(f"{out.name} is there already, releases are not overwritten; name another folder or ask to replace it")
    try:
        made_by = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except (OSError, ValueError, LookupError, TypeError):
        made_by = None
    if made_by != "braing3n" or out.is_symlink():
        raise UsageError(f"{out.name} is not a release of braing3n, so it is not replaced; name another folder")


def _refuse_broken(
    plan: TrainingPlan, people: Sequence[Person], volumes: Tensor, measured: Mapping[str, Sequence[float]]
) -> None:
    """Raise GateBlocked unless there is one finite volume on the plan's grid, and one of each measured number, per person."""
    expected = (len(people), 1, *plan.model.shape)
    if tuple(volumes.shape) != expected or not people:
        raise GateBlocked(f"the volumes have shape {tuple(volumes.shape)}, the cohort needs {expected}; generate them again")
    for person, volume in zip(people, volumes, strict=True):
        if not bool(torch.isfinite(volume).all()):
            raise GateBlocked(f"the image of {person.image} has values that are not finite; nothing was written, train again")
    for name, values in measured.items():
        if len(values) != len(people):
            raise GateBlocked(f"{name} was measured on {len(values)} of {len(people)} images; measure all of them")


def _take_place(whole: Path, out: Path, work: Path) -> None:
    """Give the finished folder its name; a release it replaces steps aside first and comes back if that fails.

    Aside is not the work folder, which the next run would remove after a kill, until the new one is there.
    """
    before = _aside(out)
    for folder in (whole, *(path for path in whole.rglob("*") if path.is_dir())):
        _sync(folder)
    replaced = out.exists()
    if replaced:
        out.rename(before)
    try:
        whole.rename(out)
    except OSError:
        if replaced:
            before.rename(out)
        raise
    _sync(out.parent)
    if replaced:
        before.rename(work / "before")


def _put_back(out: Path, work: Path) -> None:
    """A release that a killed run left aside gets its name back, or goes if another has it. Raises UsageError."""
    before = _aside(out)
    if before.exists():
        refuse_to_overwrite(before, replace=True)
        before.rename(work / "before" if out.exists() else out)


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
