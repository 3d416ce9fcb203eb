"""The tokenizer: a masked autoencoder over brain cubes (He et al., arXiv 2111.06377, in 3D) and a linear projection.

Cubes hold the difference to the public mean volume. Only cubes that touch the template's brain are tokens: N of d*h*w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braing3n_core.models.blocks import Block, Blocks, Code, sine_positions
from braing3n_core.models.presets import Preset


class Encoder(nn.Module):
    """(B, N, V) cubes -> (B, N, C) tokens; given `keep`, only those tokens are seen: (B, K) -> (B, K, C)."""

    positions: Tensor                                        # (N, C)

    def __init__(self, preset: Preset, inside: Tensor) -> None:
        super().__init__()
        width = preset.encoder_width
        self.register_buffer("positions", sine_positions(preset.tokens_per_axis, width)[inside], persistent=False)
        self.embed = nn.Linear(preset.patch_voxels, width)
        self.blocks = Blocks(Block(width, preset.encoder_heads) for _ in range(preset.encoder_depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, cubes: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.embed(cubes) + self.positions               # (B, N, C)
        if keep is not None:
            x = _take(x, keep)                               # (B, K, C)
        return self.norm(self.blocks(x))


class MaskedDecoder(nn.Module):
    """Predicts every cube from the visible tokens. Used in training alone."""

    positions: Tensor                                        # (N, E)

    def __init__(self, preset: Preset, inside: Tensor) -> None:
        super().__init__()
        width = preset.mae_decoder_width
        self.register_buffer("positions", sine_positions(preset.tokens_per_axis, width)[inside], persistent=False)
        self.enter = nn.Linear(preset.encoder_width, width)
        self.hidden = Code(width)                            # what stands in for a hidden token
        self.blocks = Blocks(Block(width, 4) for _ in range(preset.mae_decoder_depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, preset.patch_voxels)

    def forward(self, visible: Tensor, keep: Tensor) -> Tensor:
        """(B, K, C) visible tokens and their (B, K) places -> (B, N, V) predicted cubes."""
        x = self.enter(visible)                              # (B, K, E)
        B, _, E = x.shape
        blank = self.hidden(x.new_zeros(B, len(self.positions), E))
        x = blank.scatter(1, keep[..., None].expand(-1, -1, E), x) + self.positions
        return self.leave(self.norm(self.blocks(x)))


def mask_tokens(rows: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor:
    """(rows, K) places left visible when `ratio` of `tokens` is hidden, drawn anew for each row."""
    visible = max(1, round(tokens * (1 - ratio)))
    return torch.rand(rows, tokens, generator=generator).argsort(1)[:, :visible]


def masked_loss(encoder: Encoder, decoder: MaskedDecoder, cubes: Tensor, keep: Tensor) -> Tensor:
    """(B,) mean squared error over hidden cubes."""
    return hidden_error(decoder(encoder(cubes, keep), keep), cubes, keep)


def hidden_error(predicted: Tensor, cubes: Tensor, keep: Tensor) -> Tensor:
    """(B, N, V) predicted and true cubes, (B, K) visible places -> (B,) mean squared error over the others."""
    return over_hidden((predicted - cubes).square().mean(2), keep)


def over_hidden(error: Tensor, keep: Tensor) -> Tensor:
    """(B, N) error of each cube, (B, K) visible places -> (B,) its mean over the others."""
    hidden = torch.ones_like(error).scatter(1, keep, 0.0)
    return (error * hidden).sum(1) / hidden.sum(1)


def _take(x: Tensor, keep: Tensor) -> Tensor:
    return x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
