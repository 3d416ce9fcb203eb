"""The generator: a diffusion transformer (Peebles and Xie, arXiv 2212.09748) over latent tokens, trained as rectified flow.

Modulation is shared by all blocks with a small table of their own (PixArt, arXiv 2310.00426). Every conditioning variable
has its own null embedding, so any subset can be given and guidance can be set per variable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor, nn

from braing3n_core.models.blocks import Attention, Blocks, Code, sine_positions
from braing3n_core.models.population import MISSING, Population
from braing3n_core.models.presets import Preset
from braing3n_core.plan import Categorical, Continuous

WAVES = 16


class Conditions(nn.Module):
    """(B, M) codes -> (B, C): the sum of one embedding per variable.

    A continuous variable's code is its place in its range, 0 to 1; a categorical one's is its level's index; MISSING
    selects that variable's null embedding.
    """

    def __init__(self, variables: Sequence[Continuous | Categorical], width: int) -> None:
        super().__init__()
        self.levels = [0 if isinstance(v, Continuous) else len(v.levels) for v in variables]
        self.known = nn.ModuleList(nn.Linear(2 * WAVES, width) if n == 0 else nn.Embedding(n, width) for n in self.levels)
        self.null = nn.ModuleList(Code(width) for _ in variables)

    def forward(self, codes: Tensor) -> Tensor:
        parts = []
        for column, (levels, known, null) in enumerate(zip(self.levels, self.known, self.null, strict=True)):
            code = codes[:, column]
            given = (code != MISSING)[:, None].float()
            safe = code.clamp(min=0)
            value = known(safe.long()) if levels else known(waves(safe))
            parts.append(given * value + (1 - given) * null(torch.zeros_like(value)))
        return torch.stack(parts).sum(0)


class GeneratorBlock(nn.Module):
    """Transformer block whose two norms are shifted, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.table = Code(6 * width)
        self.attention = Attention(width, heads)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, N, C) tokens and (B, 6C) shared modulation -> (B, N, C)."""
        a_shift, a_scale, a_gate, m_shift, m_scale, m_gate = self.table(modulation)[:, None].chunk(6, dim=2)
        x = x + a_gate * self.attention(_norm(x) * (1 + a_scale) + a_shift)
        return x + m_gate * self.down(F.gelu(self.up(_norm(x) * (1 + m_scale) + m_shift)))


class Flow(nn.Module):
    """A diffusion transformer over tokens: (B, N, I) inputs, (B,) times, (B, M) condition codes -> (B, N, C) velocities."""

    positions: Tensor                                        # (N, W)

    def __init__(
        self, preset: Preset, inside: Tensor, variables: Sequence[Continuous | Categorical], inputs: int, depth: int
    ) -> None:
        super().__init__()
        width = preset.generator_width
        self.register_buffer("positions", sine_positions(preset.tokens_per_axis, width)[inside], persistent=False)
        self.enter = nn.Linear(inputs, width)
        self.place = Code(len(inside), width)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.conditions = Conditions(variables, width)
        self.mix = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = Blocks(GeneratorBlock(width, preset.generator_heads) for _ in range(depth))
        self.final = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, preset.latent_width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def velocity(self, inputs: Tensor, t: Tensor, codes: Tensor) -> Tensor:
        x = self.place(self.enter(inputs) + self.positions)  # (B, N, W)
        c = F.silu(self.mix(F.silu(self.time(waves(t)) + self.conditions(codes))))            # (B, W)
        x = self.blocks(x, self.modulation(c))
        offset, scale = self.final(c)[:, None].chunk(2, dim=2)
        return self.leave(_norm(x) * (1 + scale) + offset)


class Generator(Flow):
    """Velocity field of the flow: (B, N, C) latents, (B,) times, (B, M) condition codes -> (B, N, C).

    Every sample moves by `shift`: what `population` says of people with these conditions, in few public directions, and what
    all people have in common, in any direction. The prior leaves both at zero; they say how hospitals' people differ from the
    public, in numbers few enough to learn in private.
    """

    def __init__(self, preset: Preset, inside: Tensor, variables: Sequence[Continuous | Categorical]) -> None:
        super().__init__(preset, inside, variables, preset.latent_width, preset.generator_depth)
        self.population = Population(variables, len(inside), preset.latent_width)
        self.common = Code(len(inside), preset.latent_width)

    def shift(self, codes: Tensor) -> Tensor:
        """(B, M) codes -> (B, N, C). A code of norm 1 in `common` moves latents by a mean square of 1, as `population`'s do."""
        unit = math.sqrt(self.common.code.numel())
        return unit * self.common(self.population(codes) / unit)

    def forward(self, z: Tensor, t: Tensor, codes: Tensor) -> Tensor:
        shift = self.shift(codes)
        return self.velocity(z - (1 - t)[:, None, None] * shift, t, codes) - shift


def waves(x: Tensor) -> Tensor:
    """(B,) in [0, 1] -> (B, 32) sines and cosines of rising frequency."""
    rates = math.pi * torch.exp(torch.linspace(0, math.log(32.0), WAVES, device=x.device))
    angle = x[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])
