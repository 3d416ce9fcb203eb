"""MONAI's latent diffusion trained as the prior was: the same phantoms and conditions, as much arithmetic.

It goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import codes_of
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import DEFAULT_VARIABLES
from braing3n_core.state import load, save
from braing3n_core.training import hidden
from server.optimise import Phase, Say
from server.prior import AveragedRecipe, PriorRecipe, batched, conditions_of, public_people, train_networks, varied_volumes
from simulations.baselines.latent_diffusion import LATENT_CHANNELS, LatentDiffusion
from simulations.bench.estimate import estimate
from simulations.bench.floor import flops
from simulations.recipe_files import found_recipe


class BaselineRecipe(AveragedRecipe):
    """Everything that decides the baseline's weights."""

    prior: Path                                              # the recipe of the prior whose phantoms it is trained on
    autoencoder: Phase
    diffusion: Phase


def trained(recipe: BaselineRecipe, out: Path, say: Say) -> LatentDiffusion:
    """The networks of `recipe`, from `out` if they were trained there. Raises UsageError if it is another recipe's."""
    out.mkdir(parents=True, exist_ok=True)
    prior = PriorRecipe.load(found_recipe(recipe.prior))
    if prior.preset != recipe.preset:
        raise UsageError(f"{recipe.prior} is of preset {prior.preset} and not {recipe.preset}; name a prior of its own preset")
    _refuse_another(recipe, prior, out / "recipe.json")
    torch.manual_seed(recipe.seed)                           # initial weights
    model, path = LatentDiffusion(PRESETS[recipe.preset].shape, DEFAULT_VARIABLES), out / "monai.safetensors"
    if not path.exists():
        _train(model, recipe, prior, out, say)
        save(path, model.state_dict())
    model.load_state_dict(load(path)[0])
    return model.eval()


def _refuse_another(recipe: BaselineRecipe, prior: PriorRecipe, path: Path) -> None:
    """Everything in a folder was trained by the recipe that lies in it."""
    asked = json.dumps([recipe.model_dump(mode="json"), prior.model_dump(mode="json")], indent=1).encode() + b"\n"
    if path.exists() and path.read_bytes() != asked:
        raise UsageError(f"{path.parent.name} holds what another recipe trained; name another folder")
    write_atomically(path, asked)


def _train(model: LatentDiffusion, recipe: BaselineRecipe, prior: PriorRecipe, out: Path, say: Say) -> None:
    say(f"phantoms: {prior.varied} of many scanners for the autoencoder")
    volumes = varied_volumes(prior)

    def reconstructed(draw: torch.Generator) -> Tensor:
        rows = torch.randint(len(volumes), (recipe.autoencoder.batch,), generator=draw)
        return model.autoencoder_loss(volumes[rows].float(), draw)

    train_networks("autoencoder", ("autoencoder",), model, reconstructed, recipe.autoencoder, recipe, out, say)
    say(f"phantoms: {prior.people} of the public population for the diffusion")
    people, truths = public_people(prior)
    preset = PRESETS[recipe.preset]
    codes = codes_of(
        DEFAULT_VARIABLES, [conditions_of(truth, volume, preset) for truth, volume in zip(truths, people, strict=True)]
    )
    latents = batched(model.eval().encode, people).float()
    model.train().scale.fill_(float(latents.std()))

    def denoised(draw: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (recipe.diffusion.batch,), generator=draw)
        return model.diffusion_loss(latents[rows], hidden(codes[rows], draw), draw)

    train_networks("diffusion", ("unet",), model, denoised, recipe.diffusion, recipe, out, say)


def arithmetic(recipe: BaselineRecipe) -> dict[str, tuple[float, float]]:
    """"autoencoder" and "generator" -> FLOPs that the prior's training took, and that the baseline's takes."""
    prior, preset = PriorRecipe.load(found_recipe(recipe.prior)), PRESETS[recipe.preset]
    ours = estimate(recipe.preset, preset, DEFAULT_VARIABLES, steps=1).step_flops
    model, draw = LatentDiffusion(preset.shape, DEFAULT_VARIABLES), torch.Generator().manual_seed(0)
    volume, codes = torch.zeros(1, 1, *preset.shape), torch.zeros(1, len(DEFAULT_VARIABLES))
    latents = torch.zeros(1, LATENT_CHANNELS, *model.latent)
    return {
        "autoencoder": (
            _rows(prior.encoder) * ours["encoder"] + _rows(prior.decoder) * ours["decoder"],
            _rows(recipe.autoencoder) * flops(lambda: model.autoencoder_loss(volume, draw).backward()),
        ),
        "generator": (
            float(_rows(prior.generator) * ours["generator"]),
            _rows(recipe.diffusion) * flops(lambda: model.diffusion_loss(latents, codes, draw).backward()),
        ),
    }


def _rows(phase: Phase) -> int:
    return phase.steps * phase.batch
