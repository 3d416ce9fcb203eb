"""Model sizes as data. Every other size in the project follows from one of these."""

from __future__ import annotations

from dataclasses import dataclass

Sides = tuple[int, int, int]
LONGEST_YEARS = 20.0             # between two visits of one person, that trajectories know


@dataclass(frozen=True)
class Preset:
    """One model family member: the grid it sees, how the grid is cut, and how wide and deep the three networks are.

    Sides are (D, H, W) in RAS order: left-right, posterior-anterior, inferior-superior.
    """

    shape: Sides                 # voxels
    spacing_mm: tuple[float, float, float]
    patch: Sides                 # voxels of one token; need not be a cube
    encoder_width: int
    encoder_depth: int
    encoder_heads: int
    mae_decoder_width: int
    mae_decoder_depth: int
    mask_ratio: float            # part of the tokens hidden from the MAE encoder
    latent_width: int            # channels of one projected token: what the generator models
    decoder_channels: int        # width of the convolutional decoder
    generator_width: int         # at least latent_width (RAE, arXiv 2510.11690)
    generator_depth: int
    generator_heads: int
    trajectory_depth: int        # of the network that says what years change; as wide as the generator

    def __post_init__(self) -> None:
        if any(side % cut for side, cut in zip(self.shape, self.patch, strict=True)):
            raise ValueError(f"patch {self.patch} must divide shape {self.shape}; pad or crop the grid first")
        if any(cut % 2 for cut in self.patch):
            raise ValueError(f"patch {self.patch} must have even sides: the decoder works at half a token")
        if not self.generator_width >= self.latent_width:
            raise ValueError(f"generator_width={self.generator_width} must be at least latent_width={self.latent_width}")

    @property
    def tokens_per_axis(self) -> Sides:
        """(d, h, w): tokens along each axis."""
        d, h, w = (side // cut for side, cut in zip(self.shape, self.patch, strict=True))
        return d, h, w

    @property
    def tokens(self) -> int:
        """N = d*h*w."""
        d, h, w = self.tokens_per_axis
        return d * h * w

    @property
    def patch_voxels(self) -> int:
        """Voxels in one token."""
        p, q, r = self.patch
        return p * q * r


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        shape=(48, 48, 48),
        spacing_mm=(4.0, 4.0, 4.0),
        patch=(8, 8, 8),
        encoder_width=144,
        encoder_depth=4,
        encoder_heads=4,
        mae_decoder_width=96,
        mae_decoder_depth=2,
        mask_ratio=0.75,
        latent_width=24,
        decoder_channels=32,
        generator_width=160,
        generator_depth=6,
        generator_heads=5,
        trajectory_depth=4,
    ),
    "small": Preset(                                         # 2 mm; no prior ships
        shape=(96, 96, 96),
        spacing_mm=(2.0, 2.0, 2.0),
        patch=(8, 8, 8),
        encoder_width=384,
        encoder_depth=8,
        encoder_heads=6,
        mae_decoder_width=192,
        mae_decoder_depth=4,
        mask_ratio=0.75,
        latent_width=32,
        decoder_channels=64,
        generator_width=384,
        generator_depth=12,
        generator_heads=6,
        trajectory_depth=6,
    ),
    "base": Preset(                                          # 1 mm; no prior ships
        shape=(192, 224, 192),
        spacing_mm=(1.0, 1.0, 1.0),
        patch=(16, 16, 16),
        encoder_width=768,
        encoder_depth=12,
        encoder_heads=12,
        mae_decoder_width=384,
        mae_decoder_depth=4,
        mask_ratio=0.75,
        latent_width=32,
        decoder_channels=128,
        generator_width=768,
        generator_depth=16,
        generator_heads=12,
        trajectory_depth=8,
    ),
}
