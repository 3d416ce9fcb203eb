"""The release as a BIDS derivative dataset: every image marked as synthetic, every file in SHA256SUMS, whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from braing3n_core.data.template import SPACE, template
from braing3n_core.data.volume import write_volume
from braing3n_core.errors import GateBlocked, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import Condition
from braing3n_core.plan import Categorical, Continuous, TrainingPlan
from server.release.cohort import Person, Variable

BIDS_VERSION = "1.11.1"
SUMS = "SHA256SUMS"
PLAN = "plan.json"
OLDEST_AGE = 89                                              # years; BIDS writes every age from here on as 89
_SPACE_URL = "http://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009"
_DESCRIP_BYTES = 79                                          # what the NIfTI-1 field holds


def image_path(person: Person) -> str:
    """Where a person's image lies inside the release, POSIX."""
    return f"{person.name}/anat/{person.name}_space-{SPACE}_desc-synthetic_T1w.nii.gz"


def write_dataset(
    out: Path,
    plan: TrainingPlan,
    people: Sequence[Person],
    volumes: Tensor,
    *,
    measured: Mapping[str, Sequence[float]] | None = None,
    documents: Mapping[str, bytes] | None = None,
    replace: bool = False,
) -> Path:
    """Write the dataset to `out`; `volumes` is (n, 1, D, H, W), `documents` are further files at its root.

    Guarantee: `out` appears whole, with every file on disk, or not at all; an existing release is refused unless `replace`
    is given, and then it is there until the new one takes its name. The same arguments give the same bytes. `measured` are
    columns of numbers measured on the synthetic images, one per person.
    """
    refuse_to_overwrite(out, replace)
    _refuse_broken(plan, people, volumes, measured or {})
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        for content in (_tables(plan, people, measured or {}), documents or {}):
            for name, text in content.items():
                write_atomically(whole / name, text)
        for index, person in enumerate(people):
            _write_person(whole, plan, person, index, volumes[index, 0])
        ignored = sorted({*(documents or {}), PLAN, SUMS})
        write_atomically(whole / ".bidsignore", "".join(f"{name}\n" for name in ignored).encode())
        write_atomically(whole / SUMS, checksums(whole))
        _take_place(whole, out, Path(scratch) / "before")
    return out


def checksums(folder: Path) -> bytes:
    """SHA256SUMS of every file below `folder` but itself, as `sha256sum -c` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    rows = ((hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(folder).as_posix()) for path in files)
    return "".join(f"{digest}  {name}\n" for digest, name in rows).encode()


def _write_person(root: Path, plan: TrainingPlan, person: Person, index: int, volume: Tensor) -> None:
    image = root / image_path(person)
    image.parent.mkdir(parents=True)
    seed = plan.release.seed
    write_volume(
        image,
        volume.detach().cpu().numpy(),
        template(plan.model).affine,
        descrip=f"SYNTHETIC {plan.study} seed {seed} image {index}"[:_DESCRIP_BYTES],
        intent_name="SYNTHETIC",
    )
    sidecar = {
        "Description": "Synthetic T1-weighted brain made by a generator; not a scan of any person; not for diagnosis",
        "SkullStripped": True,
        "SyntheticData": True,
        "SpatialReference": _SPACE_URL,
        "RequestedConditions": person.conditions,
        "Seed": seed,
        "Index": index,
        "SamplerSteps": plan.release.steps,
        "Guidance": plan.release.weights,
        "Study": plan.study,
        "PlanDigest": plan.digest,
    }
    write_atomically(image.with_name(image.name.removesuffix(".nii.gz") + ".json"), _json(sidecar))


def _tables(plan: TrainingPlan, people: Sequence[Person], measured: Mapping[str, Sequence[float]]) -> dict[str, bytes]:
    """The files of the dataset that are not images, by name."""
    names = [variable.name for variable in plan.variables]
    rows = [["participant_id", *names, *(f"{name}_measured" for name in measured)]]
    for i, person in enumerate(people):
        asked = [_cell(variable, person.conditions.get(variable.name)) for variable in plan.variables]
        rows.append([person.name, *asked, *(_measured(values[i]) for values in measured.values())])
    return {
        "dataset_description.json": _json(_description(plan)),
        "participants.tsv": "".join("\t".join(row) + "\n" for row in rows).encode(),
        "participants.json": _json(_columns(plan, measured)),
        "descriptions.tsv": b"desc_id\tdescription\ndesc-synthetic\tmade by a generator; not a scan of any person\n",
        PLAN: plan.canonical().encode() + b"\n",
        "README.md": _readme(plan, len(people)).encode(),
    }


def _description(plan: TrainingPlan) -> dict[str, object]:
    rehearsal, private = plan.rehearsal is not None, plan.privacy.mechanism == "local"
    return {
        "Name": f"{plan.study}: synthetic T1-weighted brains",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "CC0-1.0" if rehearsal else "No licence granted yet; ask the data controllers of the study",
        "HowToAcknowledge": f"Synthetic images of study {plan.study}, plan {plan.digest[:12]}, in the space of ICBM152 2009a",
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


def _columns(plan: TrainingPlan, measured: Mapping[str, Sequence[float]]) -> dict[str, object]:
    columns: dict[str, object] = {"participant_id": {"Description": "A synthetic person; linked to no patient"}}
    for variable in plan.variables:
        about: dict[str, object] = {"Description": f"REQUESTED of the generator, not observed: {variable.name}"}
        if isinstance(variable, Continuous):
            about |= {"Units": variable.unit}
            if variable.name == "age":
                about["Description"] = f"{about['Description']}; {OLDEST_AGE}: this or older, exact in each image's JSON file"
        else:
            about["Levels"] = {_plain(level): _LEVELS.get((variable.name, level), _plain(level)) for level in variable.levels}
        columns[variable.name] = about
    for name in measured:
        unit = next((v.unit for v in plan.variables if isinstance(v, Continuous) and v.name == name), "")
        columns[f"{name}_measured"] = {"Description": f"{name} as measured on the synthetic image", "Units": unit}
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


def _readme(plan: TrainingPlan, count: int) -> str:
    return f"""# {plan.study}: {count} synthetic brains

Every image here was made by a generator. None is a scan of a person, and none may be used for diagnosis or treatment.
Each image says so itself: in its name (`desc-synthetic`), its JSON file (`SyntheticData`) and its NIfTI header (`descrip`).

- Open `report.html` in a browser. It needs no network.
- `participants.tsv` holds what was REQUESTED of the generator for each image, drawn from the plan (`plan.json`), never
  from a table of patients.
- Images are skull-stripped, in the space {SPACE}, axes right-anterior-superior, intensities without unit (white matter is
  near 0.85, background is 0).

## Load

```python
from bids import BIDSLayout
layout = BIDSLayout(".", is_derivative=True, config=["bids", "derivatives"])
images = layout.get(desc="synthetic", extension=".nii.gz")
```

## Verify

```
sha256sum -c {SUMS}
```

Plan digest: `{plan.digest}`. What the privacy guarantee covers, and what it does not, is in `report.html` and, where present,
`privacy.json`.
"""


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


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
            raise GateBlocked(f"the image of {person.name} has values that are not finite; nothing was written, train again")
    for name, values in measured.items():
        if len(values) != len(people):
            raise GateBlocked(f"{name} was measured on {len(values)} of {len(people)} images; measure all of them")


def _take_place(whole: Path, out: Path, before: Path) -> None:
    """Give the finished folder its name; a release it replaces steps aside first and comes back if that fails."""
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
    shutil.rmtree(before, ignore_errors=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
