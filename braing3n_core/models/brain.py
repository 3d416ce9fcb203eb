"""The whole model: tokenizer, decoder and generator around one latent space, and the public constants they share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Final, cast, get_args

import torch
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from braing3n_core.cohort_spec import Shown
from braing3n_core.data.template import template
from braing3n_core.errors import UsageError
from braing3n_core.models.blocks import cubes_from_volume
from braing3n_core.models.decoder import Decoder
from braing3n_core.models.generator import Generator
from braing3n_core.models.modality import Modality
from braing3n_core.models.population import MISSING
from braing3n_core.models.presets import Preset
from braing3n_core.models.quantizer import FiniteScalar
from braing3n_core.models.spread import Spread
from braing3n_core.models.steering import Steering
from braing3n_core.models.tokenizer import Encoder, MaskedDecoder
from braing3n_core.models.trajectory import Trajectory
from braing3n_core.morphometry import Morphometry
from braing3n_core.plan import T1W, Categorical, Continuous

Condition = float | str | None
NAMED_PARTS: Final = ("trajectory", "spread", "steering")
PARTS: Final = (*NAMED_PARTS, *(name for name in get_args(Shown) if name != T1W))          # what may lie beside the prior
MEASURES: Final = tuple(field.name.removesuffix("_ml") for field in fields(Morphometry))


class Brain(nn.Module):
    """Encoder, masked decoder, projection, latent decoder and generator of one preset and one list of variables.

    Latents are normalised with public constants (`centre`, `scale`), so the generator sees zero mean and unit variance. With a
    `quantizer` the decoder sees discrete tokens alone, in training and after; it has no weights, so tensors stay the same.
    `parts` lie beside the prior and only some plans need them: "trajectory" says what years do, "spread" how people are spread,
    "steering" brings them to volumes that are asked for, and the name of a modality brings its networks. The others are the
    same with or without them. Raises UsageError for any other part.
    """

    centre: Tensor                                           # (N, C)
    scale: Tensor                                            # (C,)

    def __init__(
        self,
        preset: Preset,
        variables: Sequence[Continuous | Categorical],
        parts: Collection[str] = (),
    ) -> None:
        super().__init__()
        if unknown := [part for part in parts if part not in PARTS]:
            raise UsageError(f"a model has no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        public = template(preset)
        brain, inside = where_brain_is(preset)
        tissue = torch.stack([public.gm, public.wm, public.csf])
        self.preset, self.variables = preset, tuple(variables)
        self.encoder = Encoder(preset, inside)
        self.masked = MaskedDecoder(preset, inside)
        self.projection = nn.Linear(preset.encoder_width, preset.latent_width)
        self.decoder = Decoder(preset, inside, brain, tissue)
        self.generator = Generator(preset, inside, variables)
        self.trajectory = Trajectory(preset, inside, variables) if "trajectory" in parts else None
        self.spread = Spread() if "spread" in parts else None
        self.steering = Steering(len(MEASURES), len(inside), preset.latent_width) if "steering" in parts else None
        others = {name: Modality(preset, inside, brain, tissue, variables) for name in parts if name not in NAMED_PARTS}
        self.others = nn.ModuleDict(others)
        self.quantizer: FiniteScalar | None = None
        self.register_buffer("centre", torch.zeros(len(inside), preset.latent_width))
        self.register_buffer("scale", torch.ones(preset.latent_width))

    @property
    def tokens(self) -> int:
        """N: cubes that touch the brain."""
        return len(self.centre)

    @property
    def years(self) -> Trajectory:
        """The trajectory. Raises UsageError where there is none."""
        if self.trajectory is None:
            raise UsageError("this model knows nothing of the years between visits; take one with a trajectory")
        return self.trajectory

    @property
    def spreading(self) -> Spread:
        """How people are spread. Raises UsageError where nothing says it."""
        if self.spread is None:
            raise UsageError("this model's people are spread as its prior's are; take a plan with the stage spread")
        return self.spread

    @property
    def steered(self) -> Steering:
        """What brings people to volumes. Raises UsageError where nothing does."""
        if self.steering is None:
            raise UsageError("this model has no constants that bring people to volumes; take one that steers")
        return self.steering

    def modality(self, name: str) -> Modality:
        """The networks of a modality that is not T1w. Raises UsageError where there are none."""
        if name not in self.others:
            raise UsageError(f"this model makes {', '.join((T1W, *self.others))}, not {name}; ask for one of these")
        return cast(Modality, self.others[name])

    def cubes(self, volumes: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, N, V): difference to the public mean, at the brain's cubes."""
        return cubes_from_volume((volumes - self.decoder.mean) * self.decoder.brain, self.preset.patch)[:, self.decoder.inside]

    def encode(self, volumes: Tensor, modality: str = T1W) -> Tensor:
        """(B, 1, D, H, W) of a modality -> (B, N, C) normalised mean latents; there is nothing random in them."""
        if modality == T1W:
            return self.latents(self.encoder(self.cubes(volumes)))
        other = self.modality(modality)
        return other.latents(self.encoder(other.cubes(volumes)))

    def latents(self, tokens: Tensor) -> Tensor:
        """(B, N, E) tokens of a T1w -> (B, N, C) normalised latents."""
        return (self.projection(tokens) - self.centre) / self.scale

    def decode(self, latents: Tensor, modality: str = T1W) -> Tensor:
        """(B, N, C) normalised latents of a modality -> (B, 1, D, H, W)."""
        decoder = self.decoder if modality == T1W else self.modality(modality).decoder
        volumes: Tensor = decoder(latents if self.quantizer is None else self.quantizer(latents))
        return volumes

    def wanted_volumes(self, conditions: Sequence[Mapping[str, Condition]]) -> Tensor:
        """Conditions as (B, V) ml for `steering`; NaN where a measured variable is missing or not one of the model's."""
        known = {variable.name for variable in self.variables if variable.source == "measured"}
        asked = [[row.get(name) if name in known else None for name in MEASURES] for row in conditions]
        return torch.tensor([[math.nan if value is None else float(value) for value in row] for row in asked])

    def codes(self, conditions: Sequence[Mapping[str, Condition]]) -> Tensor:
        """Conditions as (B, M) codes for the generator, see `codes_of`."""
        return codes_of(self.variables, conditions)


def codes_of(variables: Sequence[Continuous | Categorical], conditions: Sequence[Mapping[str, Condition]]) -> Tensor:
    """Conditions as (B, M) codes, one for each variable; a name that is absent or None is missing."""
    return torch.tensor([[_code(variable, row.get(variable.name)) for variable in variables] for row in conditions])


def _code(variable: Continuous | Categorical, value: Condition) -> float:
    if value is None:
        return MISSING
    if isinstance(variable, Categorical):
        return float(variable.levels.index(str(value)))
    return (float(value) - variable.low) / (variable.high - variable.low)


def where_brain_is(preset: Preset) -> tuple[Tensor, Tensor]:
    """(D, H, W) bool, the template's brain widened by one voxel, and (N,) places of the tokens that touch it."""
    brain = torch.from_numpy(binary_dilation(template(preset).mask.numpy()))
    return brain, cubes_from_volume(brain[None, None].float(), preset.patch)[0].sum(1).nonzero()[:, 0]
