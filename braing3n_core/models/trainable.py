"""What a stage may change: everything of its networks, named groups, or low-rank factors beside its linear maps.

Only these tensors are trained, noised and sent, and noise grows with the square root of their number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from braing3n_core.errors import PlanRefused
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage

NETWORKS: dict[str, tuple[str, ...]] = {                     # stage -> the networks it trains
    "encoder": ("encoder", "masked"),
    "decoder": ("projection", "decoder"),
    "generator": ("generator",),
    "spread": ("spread",),
    "trajectory": ("trajectory",),
    "contrast": ("others.FLAIR.decoder",),                   # latents and their translation from T1w stay public
}
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {            # stage -> group -> prefixes of tensor names
    "encoder": {"norms": ("encoder.norm.",)},
    "decoder": {"style": ("decoder.style.",), "output": ("decoder.style.", "decoder.leave.")},
    "generator": {
        "population": ("generator.population.",),
        "place": ("generator.population.", "generator.common."),
        "conditions": ("generator.conditions.",),
        "ends": ("generator.conditions.", "generator.final.", "generator.leave."),
    },
    "spread": {},
    "trajectory": {"pace": ("trajectory.pace.",)},
    "contrast": {"style": ("others.FLAIR.decoder.style.",)},
}


class LowRank(nn.Module):
    """A frozen linear map plus `up(down(x))` of rank R; `down` is random and fixed, `up` starts at zero and is trained.

    With one factor fixed, the mean of several sites' factors is the factor of the mean, and noise does not multiply noise
    (FFA-LoRA, Sun et al., arXiv 2403.12313).
    """

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.down.weight = nn.Parameter(
            torch.randn(rank, base.in_features, generator=generator) / math.sqrt(base.in_features), requires_grad=False
        )
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def select_trainable(model: Brain, stage: Stage, seed: int) -> None:
    """Freeze all of `model` but what `stage` trains. The same seed gives the same fixed factors at every site."""
    merge(model)
    model.requires_grad_(False)
    match stage.trainable.partition(":"):
        case "all", _, _:
            for network in NETWORKS[stage.name]:
                model.get_submodule(network).requires_grad_(True)
        case "lora", _, rank:
            generator = torch.Generator().manual_seed(seed)
            for network in NETWORKS[stage.name]:
                _add_factors(model, network, int(rank), generator)
        case _, _, group:
            prefixes = _prefixes(stage.name, group)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith(prefixes))


def merge(model: Brain) -> None:
    """Fold every low-rank factor into the map beside it; the function computed does not change."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LowRank):
            with torch.no_grad():
                module.base.weight += module.up.weight @ module.down.weight
            _replace(model, name, module.base)


def _add_factors(model: Brain, network: str, rank: int, generator: torch.Generator) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (name == network or name.startswith(f"{network}.")):
            _replace(model, name, LowRank(module, rank, generator))


def _replace(model: Brain, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _prefixes(stage: str, group: str) -> tuple[str, ...]:
    if group not in GROUPS[stage]:
        raise PlanRefused(f"stage {stage} has no group {group!r}; it has {', '.join(GROUPS[stage])}, all and lora:RANK")
    return GROUPS[stage][group]
