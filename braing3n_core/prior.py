"""The public prior that ships with the package: where every federated run starts. server/prior.py made it from phantoms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import Brain
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES, TrainingPlan
from braing3n_core.state import load, save

SHIPPED = Path(str(files("braing3n_core") / "weights"))


def load_prior(plan: TrainingPlan) -> Brain:
    """The shipped prior of the plan's preset, frozen, in float32.

    Raises IntegrityError if the weights are not those whose digest the package records, and PlanRefused if the plan's
    conditioning variables are not those the prior was trained with.
    """
    if plan.variables != DEFAULT_VARIABLES:
        raise PlanRefused("the shipped prior knows the default variables alone; leave [[variables]] out of the plan")
    return read_prior(SHIPPED / f"{plan.preset}.safetensors")


def read_prior(path: Path) -> Brain:
    """The prior at `path`, checked against the record beside it."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the prior {path.name} or its record cannot be read; install the package again") from error
    if digest != record.get("sha256"):
        raise IntegrityError(f"the prior {path.name} is not the one its record describes; install the package again")
    tensors, _ = load(path)
    model = Brain(PRESETS[str(record["preset"])], DEFAULT_VARIABLES)
    _adopt(model, tensors)
    return model.requires_grad_(False)


def write_prior(model: Brain, preset: str, recipe: Mapping[str, object], out: Path) -> Path:
    """Write the model as float16 `<out>/<preset>.safetensors` and its record (digest, recipe); return the first."""
    path = out / f"{preset}.safetensors"
    save(path, {name: tensor.half() for name, tensor in model.state_dict().items()}, {"preset": preset})
    record = {"preset": preset, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "recipe": recipe}
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return path


def _adopt(model: Brain, tensors: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into the model; names and shapes must be exactly the model's."""
    try:
        model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise IntegrityError(f"the prior does not fit this version's model ({why}); install the package again") from error
