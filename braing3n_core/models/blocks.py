"""Pieces every network shares: cubes of a volume, sine positions, attention, and leaves that hold raw parameters.

B batch, (D H W) voxels, (d h w) cubes, (p q r) cube sides, N tokens, C channels. Nothing here draws random numbers: masks,
times and noise come in as arguments, so that per-patient gradients see one fixed function.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader expects
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from braing3n_core.models.presets import Sides


def cubes_from_volume(x: Tensor, patch: Sides) -> Tensor:
    """(B, 1, D, H, W) -> (B, d*h*w, p*q*r), cubes in depth-major order. Inverse: volume_from_cubes."""
    B, _, D, H, W = x.shape
    p, q, r = patch
    x = x.reshape(B, D // p, p, H // q, q, W // r, r)        # (B, d, p, h, q, w, r)
    x = x.permute(0, 1, 3, 5, 2, 4, 6)                       # (B, d, h, w, p, q, r)
    return x.reshape(B, -1, p * q * r)                       # (B, N, pqr)


def volume_from_cubes(cubes: Tensor, shape: Sides, patch: Sides) -> Tensor:
    """(B, d*h*w, p*q*r) -> (B, 1, D, H, W). Inverse: cubes_from_volume."""
    D, H, W = shape
    p, q, r = patch
    x = cubes.reshape(-1, D // p, H // q, W // r, p, q, r)   # (B, d, h, w, p, q, r)
    x = x.permute(0, 1, 4, 2, 5, 3, 6)                       # (B, d, p, h, q, w, r)
    return x.reshape(-1, 1, D, H, W)


def sine_positions(tokens_per_axis: Sides, width: int) -> Tensor:
    """(d*h*w, width): sines and cosines of each axis' place, an equal share of channels per axis, the rest zero."""
    per_axis = width // 6 * 2                                # an even number of channels for each of three axes
    rates = torch.exp(-math.log(64.0) * torch.arange(per_axis // 2) / (per_axis // 2))
    codes = []
    for places in torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in tokens_per_axis], indexing="ij"):
        angle = places.reshape(-1, 1) * rates                # (N, per_axis/2)
        codes += [angle.sin(), angle.cos()]
    return F.pad(torch.cat(codes, 1), (0, width - 3 * per_axis))


class Code(nn.Module):
    """A learned code added to every row: x + code. A leaf of its own, because Opacus follows parameters by leaf."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.code

    def patient_gradients(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """(P, K, ...) twice -> (P, *shape); see privacy.fast_layers."""
        return {"code": grad.sum(tuple(range(1, grad.dim() - self.code.dim())))}


class PerPosition(nn.Module):
    """A linear map of its own at every token: (B, N, C) -> (B, N, E)."""

    def __init__(self, tokens: int, channels: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens, channels, out))

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("bnc,nce->bne", z, self.weight)

    def patient_gradients(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """(P, K, N, C) and (P, K, N, E) -> (P, N, C, E); see privacy.fast_layers."""
        return {"weight": torch.einsum("pknc,pkne->pnce", x, grad)}

    def patient_squares(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """Their squared norms, (P,), from the inner products of rows at every token: nothing of the weights' size is made."""
        rows_x, rows_grad = (torch.einsum("pknc,plnc->pnkl", rows, rows) for rows in (x, grad))
        return {"weight": (rows_x * rows_grad).sum((1, 2, 3))}


class Attention(nn.Module):
    """Multi-head self-attention over tokens, (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                 # each (B, heads, N, C/heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(B, N, C))


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class Blocks(nn.ModuleList):
    """Blocks one after another: (B, N, C) and whatever else each takes -> (B, N, C).

    Off by default, neither changes weights or their names: `checkpointing` keeps each block's input alone and computes the
    rest again in the backward pass, with equal gradients; `bf16` computes inside blocks in bfloat16, which moves results by
    about one part in a hundred. Checkpointing needs a plain backward pass, so per-patient engines run without it.
    """

    checkpointing = False
    bf16 = False

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            for block in self:
                if self.checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, *context, use_reentrant=False)
                else:
                    x = block(x, *context)
        return x.float() if self.bf16 else x


def set_thrift(model: nn.Module, *, checkpointing: bool = False, bf16: bool = False) -> None:
    """Trade time for memory (`checkpointing`) and digits for both (`bf16`) in every row of blocks of the model."""
    for module in model.modules():
        if isinstance(module, Blocks):
            module.checkpointing, module.bf16 = checkpointing, bf16
