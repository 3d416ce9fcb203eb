"""The public prior that ships with the package: where every federated run starts. server/prior.py made it from phantoms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braing3n_core.data.phantom import WHITE_LEVEL
from braing3n_core.data.template import template
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import NAMED_PARTS, Brain
from braing3n_core.models.population import Population
from braing3n_core.models.presets import PRESETS, Preset
from braing3n_core.models.quantizer import FiniteScalar
from braing3n_core.plan import DEFAULT_VARIABLES, Categorical, Continuous, TrainingPlan
from braing3n_core.state import load, save

SHIPPED = Path(str(files("braing3n_core") / "weights"))


def load_prior(plan: TrainingPlan) -> Brain:
    """The model that a plan's training starts from, frozen, in float32: the shipped prior, or weights drawn from the seed.

    Variables that the prior does not know start without effect: the generator is the prior's, exactly, until a stage trains
    them. A plan with visits gets the trajectory too, one with other modalities those. Raises IntegrityError if the weights are
    not those whose digest the package records, and PlanRefused if the plan changes or leaves out a variable that the prior
    knows.
    """
    _refuse_changed_variables(plan)
    if plan.start == "scratch":
        model = from_scratch(plan.model, plan.variables, plan.seed)
    else:
        model = read_prior(SHIPPED / f"{plan.preset}.safetensors", plan.variables, plan.parts)
    model.quantizer = FiniteScalar(plan.levels) if plan.levels else None
    return model


def from_scratch(preset: Preset, variables: Sequence[Continuous | Categorical], seed: int) -> Brain:
    """Untrained networks around the public template as mean volume, frozen. The same seed gives every site the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Brain(preset, variables)
    model.decoder.mean.copy_(WHITE_LEVEL * template(preset).t1)
    return model.requires_grad_(False)


def read_prior(
    path: Path, variables: Sequence[Continuous | Categorical] = DEFAULT_VARIABLES, parts: Collection[str] = ()
) -> Brain:
    """The prior at `path`, checked against the record beside it; `variables` after the default ones start without effect.

    With those `parts` (of `Brain`) that lie beside it, all made on this prior's latents.
    """
    record, tensors = _checked(path)
    for part in parts:
        about, more = _checked(beside_prior(path, part))
        if about.get("prior") != record["sha256"]:
            raise IntegrityError(f"the {part} beside {path.name} belongs to another prior; install the package again")
        tensors |= more
    model = Brain(PRESETS[str(record["preset"])], variables, parts)
    _adopt(model, tensors, len(DEFAULT_VARIABLES))
    return model.requires_grad_(False)


def extended(model: Brain, part: str) -> Brain:
    """The same model with an untrained part (of `Brain`) beside it; frozen."""
    larger = Brain(model.preset, model.variables, (part,))
    larger.load_state_dict({**larger.state_dict(), **model.state_dict()})
    return larger.requires_grad_(False)


def complete(model: Brain, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a trained model, with zeros for `common` if it was trained by a version that had none."""
    return {"generator.common.code": torch.zeros_like(model.generator.common.code), **tensors}


def write_prior(model: Brain, preset: str, recipe: Mapping[str, object], out: Path) -> Path:
    """Write the model as float16 `<out>/<preset>.safetensors` and its record (digest, recipe); return the first."""
    return _write(out / f"{preset}.safetensors", model.state_dict(), {"preset": preset, "recipe": recipe})


def write_beside(model: Brain, part: str, preset: str, recipe: Mapping[str, object], prior: Path, out: Path) -> Path:
    """Write one part of the model as float16 with its record: digest, recipe, prior's digest. `part` as in `beside_prior`."""
    prefix = f"{part}." if part in NAMED_PARTS else f"others.{part}."
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    record = {"preset": preset, "prior": hashlib.sha256(prior.read_bytes()).hexdigest(), "recipe": recipe}
    return _write(beside_prior(out / f"{preset}.safetensors", part), tensors, record)


def beside_prior(prior: Path, part: str) -> Path:
    """Where a part (of `Brain`) that goes with the prior at this path lies."""
    return prior.with_suffix(f".{part}.safetensors")


def _write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> Path:
    save(path, {name: tensor.half() for name, tensor in tensors.items()}, {"preset": str(record["preset"])})
    whole = {**record, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_atomically(path.with_suffix(".json"), (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())
    return path


def _checked(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record beside `path` and the tensors in it. Raises IntegrityError unless one describes the other."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the prior {path.name} or its record cannot be read; install the package again") from error
    if digest != record.get("sha256"):
        raise IntegrityError(f"the prior {path.name} is not the one its record describes; install the package again")
    return record, load(path)[0]


def _refuse_changed_variables(plan: TrainingPlan) -> None:
    """The prior's variables come first, in its order, as it knows them; what is new comes after."""
    if plan.start == "prior" and plan.variables[: len(DEFAULT_VARIABLES)] != DEFAULT_VARIABLES:
        names = ", ".join(variable.name for variable in DEFAULT_VARIABLES)
        raise PlanRefused(f"the prior knows the variables {names}; keep them first and unchanged, and add new variables after")


def _adopt(model: Brain, tensors: Mapping[str, Tensor], known: int) -> None:
    """Copy stored tensors into the model and silence variables after the first `known`.

    Names and shapes must be exactly the model's, but for the embeddings of those variables, and for the generator's `common`,
    which is zero in any prior.
    """
    new = range(known, len(model.variables))
    # Embeddings before the variables': the years have one.
    before = {"generator": 0, "trajectory": 1, **{f"others.{name}.translation": 0 for name in model.others}}
    prefixes = tuple(
        f"{network}.conditions.{part}.{place + shift}."
        for network, shift in before.items() for part in ("known", "null") for place in new
    )  # fmt: skip
    own = {name: torch.zeros_like(t) for name, t in model.state_dict().items() if name.startswith(prefixes)}
    tensors = complete(model, tensors)
    if new:
        tensors = {**tensors, **_widened("generator.population", model.generator.population, tensors)}
        if model.trajectory is not None:
            tensors = {**tensors, **_widened("trajectory.pace", model.trajectory.pace, tensors)}
    try:
        model.load_state_dict(own | {name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise IntegrityError(f"the prior does not fit this version's model ({why}); install the package again") from error


def _widened(name: str, population: Population, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored weights of the population among the features of more variables.

    Features come in two halves that begin alike, so each stored half lies at the beginning of a new one; what is new answers
    with zero.
    """
    whiten, respond = f"{name}.whiten", f"{name}.respond.weight"
    old, wide = tensors[whiten].float(), population.whiten.clone()
    half, longer = len(old) // 2, len(wide) // 2
    place = torch.cat([torch.arange(half), longer + torch.arange(half)])
    wide[place[:, None], place] = old
    answers = torch.zeros_like(population.respond.weight)
    answers[:, place] = tensors[respond].float()
    return {whiten: wide, respond: answers}
