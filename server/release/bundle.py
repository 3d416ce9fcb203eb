"""The generator as a part of a release, if that was decided: a MONAI bundle whose weights are safetensors.

docs.monai.io, MONAI Bundle Specification. Nothing in it is code: the configuration names one class of the installed package.
"""

from __future__ import annotations

import json
from importlib.metadata import version

from braing3n_core.data.template import SPACE
from braing3n_core.models.brain import Brain
from braing3n_core.plan import T1W, TrainingPlan
from braing3n_core.released import FOLDER, PLAN, WEIGHTS
from braing3n_core.state import packed
from server.release.edition import Edition
from server.release.tables import as_json, licence

_INFERENCE = {
    "bundle_root": ".",
    "conditions": [{"age": 70.0, "sex": "F"}],
    "seed": 1,
    "network_def": {"_target_": "braing3n_core.released.Released.load", "folder": "@bundle_root"},
    "volumes": "$@network_def.sample(@conditions, @seed)",
}


_ONE_OF_SEVERAL = {"modality": T1W, "volumes": "$@network_def.sample(@conditions, @seed, @modality)"}


def bundle_files(plan: TrainingPlan, model: Brain, edition: Edition) -> dict[str, bytes]:
    """Every file of the bundle by its path inside the release. The same arguments give the same bytes."""
    files = {
        "configs/metadata.json": as_json(_metadata(plan, edition)),
        "configs/inference.json": as_json(_INFERENCE | ({} if plan.modalities == (T1W,) else _ONE_OF_SEVERAL)),
        PLAN: plan.canonical().encode() + b"\n",
        WEIGHTS: packed(model.state_dict(), {"plan": plan.digest, "preset": plan.preset}),
        "docs/README.md": _readme(plan, edition).encode(),
        "LICENSE": f"{licence(plan)}\n".encode(),
    }
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def _metadata(plan: TrainingPlan, edition: Edition) -> dict[str, object]:
    shape = list(plan.model.shape)
    volume = {
        "type": "image", "format": "magnitude", "modality": "MR", "num_channels": 1, "spatial_shape": shape,
        "dtype": "float32", "value_range": [0, 1.3], "is_patch_data": False,
        "channel_def": {"0": f"{' or '.join(plan.modalities)}, skull-stripped"},
    }  # fmt: skip
    return {
        "version": edition.version,
        "changelog": {edition.version: edition.changes[0] if edition.changes else "first"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"braing3n": version("braing3n"), "safetensors": version("safetensors")},
        "task": "Conditional generation of synthetic brains",
        "description": f"Generator of {edition.name}, plan {plan.digest}, volumes in {SPACE}",
        "authors": edition.issuer,
        "copyright": licence(plan),
        "intended_use": "Developing and rehearsing methods. Not diagnosis, not treatment, not re-identification.",
        "data_type": "nibabel",
        "network_data_format": {
            "inputs": {"conditions": {"type": "tuples", "num_channels": len(plan.variables), "dtype": "float32"}},
            "outputs": {"pred": volume},
        },
    }


def _readme(plan: TrainingPlan, edition: Edition) -> str:
    example, shape = json.dumps(_INFERENCE["conditions"]), ", ".join(map(str, plan.model.shape))
    return f"""# The generator of {edition.name}

Check the release first (`braing3n-admin verify`); then, offline, with braing3n {version("braing3n")} installed:

```python
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config("{FOLDER}/configs/inference.json")
parser["bundle_root"] = "{FOLDER}"
parser["conditions"] = {example}
volumes = parser.get_parsed_content("volumes")               # (n, 1, {shape}), white matter near 0.85
```

or without MONAI: `Released.load("{FOLDER}").sample({example}, seed=1)` from `braing3n_core.released`.{_asked(plan)}

What the certificate promises holds for these weights and for whatever is drawn from them, because it holds for all that the
sites sent. The release's gates do not: nobody voted on what you draw, and nobody looked at it. Mark it as synthetic.
"""


def _asked(plan: TrainingPlan) -> str:
    """How to ask for another modality; nothing where there is one."""
    if plan.modalities == (T1W,):
        return ""
    other = plan.modalities[1]
    return f"""

Another modality of the same people: `parser["modality"] = "{other}"`, or `sample(..., modality="{other}")`. With the same
conditions and seed, image i is of the brain of T1w i."""
