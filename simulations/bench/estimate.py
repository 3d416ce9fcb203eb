"""What a preset needs, from its sizes alone: parameters, memory, arithmetic. Nothing is built and nothing is run.

N tokens, V voxels of a token, C a network's width, L latent channels. FLOPs count a multiplication and an addition as two,
and matrix products, convolutions and attention alone, as torch.utils.flop_counter does; the rest is a few percent. What is kept
for the backward pass was counted on this code with torch.autograd.graph.saved_tensors_hooks, within 10 % at tiny.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod

from braing3n_core.models.brain import where_brain_is
from braing3n_core.models.decoder import STYLE_WAVES
from braing3n_core.models.generator import WAVES
from braing3n_core.models.population import DIRECTIONS
from braing3n_core.models.presets import Preset
from braing3n_core.models.trajectory import GAP
from braing3n_core.plan import Categorical, Continuous
from simulations.bench.floor import FLOAT, Machine, Work, training_bytes

_TRAINING = 4                                                # copies of a weight: itself, gradient, two moments of AdamW
_SOMETIMES = ("trajectory", "FLAIR")                         # networks that a plan has if it asks for visits, or for FLAIR
_KEPT = {"encoder": 19, "generator": 20, "trajectory": 20}   # floats per token and channel that a block keeps
_KEPT_BY_VOXEL, _KEPT_BY_CUBE = 40, 31                       # by the decoder, per voxel, and per cube and channel
_TISSUES, _TONES = 3, 2                                      # weights of the decoder's style
Variables = Sequence[Continuous | Categorical]


@dataclass(frozen=True)
class Estimate:
    """Costs of one preset. Steps and activations are for one volume, or one pair of visits; multiply by the batch."""

    preset: str
    tokens: int
    parameters: dict[str, int]                               # network -> weights
    model_bytes: int                                         # float32, without what only some plans have
    training_bytes: dict[str, int]                           # stage -> weights, gradients and optimizer of what it trains
    activation_bytes: dict[str, int]                         # stage -> kept for the backward pass
    checkpointed_bytes: dict[str, int]                       # the same with activation checkpointing
    step_flops: dict[str, int]                               # stage -> forward and backward
    volume_flops: int                                        # one sampled volume: Heun steps and decoding


def estimate(name: str, preset: Preset, variables: Variables, steps: int, tokens: int | None = None) -> Estimate:
    """Costs of `preset` when volumes are sampled with `steps` Heun steps; `tokens` is N, by default the template's."""
    n = tokens if tokens is not None else len(where_brain_is(preset)[1])
    weights = parameters(preset, variables, n)
    trained = {
        "encoder": weights["encoder"] + weights["masked decoder"],
        "decoder": weights["projection"] + weights["decoder"],
        "generator": weights["generator"],
        "trajectory": weights["trajectory"],
        "contrast": weights["decoder"],                      # of another modality; as large as T1w's
    }
    stacks = _stacks(preset, n)
    in_decoder = _KEPT_BY_VOXEL * prod(preset.shape) + _KEPT_BY_CUBE * preset.tokens * preset.decoder_channels
    volumetric = dict.fromkeys(("decoder", "contrast"), FLOAT * in_decoder)      # no blocks: checkpointing saves nothing
    forward = {
        "encoder": _masked_flops(preset, n),
        "decoder": _decoder_flops(preset, n),
        "generator": _field_flops(preset, variables, n, preset.latent_width, preset.generator_depth),
        "trajectory": _field_flops(preset, (GAP, *variables), n, 2 * preset.latent_width, preset.trajectory_depth),
        "contrast": _decoder_flops(preset, n),
    }
    return Estimate(
        preset=name,
        tokens=n,
        parameters=weights,
        model_bytes=FLOAT * sum(count for network, count in weights.items() if network not in _SOMETIMES),
        training_bytes={stage: FLOAT * _TRAINING * count for stage, count in trained.items()},
        activation_bytes=volumetric | {s: FLOAT * sum(_kept(s, *each) for each in rows) for s, rows in stacks.items()},
        checkpointed_bytes=volumetric | {s: FLOAT * sum(_recomputed(s, *each) for each in rows) for s, rows in stacks.items()},
        step_flops={stage: 3 * flops - _unneeded(stage, preset, n) for stage, flops in forward.items()},
        volume_flops=(2 * steps - 1) * forward["generator"] + forward["decoder"],
    )


def parameters(preset: Preset, variables: Variables, n: int) -> dict[str, int]:
    """Network -> number of weights, exactly those of a longitudinal braing3n_core.models.brain.Brain with FLAIR."""
    v, c, e = preset.patch_voxels, preset.encoder_width, preset.mae_decoder_width
    latent, w, cubes = preset.latent_width, preset.decoder_channels, preset.tokens
    population = DIRECTIONS * _features(variables)
    decoder = [
        n * latent * v, _linear(latent, 2 * w), 2 * w * cubes, 27 * 2 * w * w + w, 8 * w * cubes, 27 * w * w + w,
        w * (v // 8) + v // 8, _TONES + _TISSUES + STYLE_WAVES**3,
    ]  # fmt: skip
    return {
        "encoder": _linear(v, c) + preset.encoder_depth * _block(c) + 2 * c,
        "masked decoder": _linear(c, e) + e + preset.mae_decoder_depth * _block(e) + 2 * e + _linear(e, v),
        "projection": _linear(c, latent),
        "decoder": sum(decoder),
        "generator": _field(preset, variables, n, latent, preset.generator_depth) + population + n * latent,
        "trajectory": _field(preset, (GAP, *variables), n, 2 * latent, preset.trajectory_depth) + population,
        "FLAIR": _linear(c, latent) + sum(decoder) + _field(preset, variables, n, 2 * latent, preset.trajectory_depth),
    }


def _field(preset: Preset, variables: Variables, n: int, inputs: int, depth: int) -> int:
    """Weights of a velocity field, the population's aside."""
    g, latent = preset.generator_width, preset.latent_width
    known = sum((2 * WAVES + 1) * g if isinstance(one, Continuous) else len(one.levels) * g for one in variables)
    ends = _linear(inputs, g) + n * g + _linear(g, 2 * g) + _linear(g, latent)
    conditions = _linear(2 * WAVES, g) + _linear(g, g) + known + g * len(variables) + _linear(g, g) + _linear(g, 6 * g)
    return ends + conditions + depth * (6 * g + _linear(g, 3 * g) + _linear(g, g) + _mlp(g))


def told(found: Estimate, batch: int, machine: Machine | None = None) -> list[str]:
    """The estimate for a person, with activations of a batch; with a machine, the least seconds that it takes for each too."""
    without = _short(found.model_bytes // FLOAT)
    lines = [f"preset {found.preset}: {found.tokens} tokens, {without} parameters, {' and '.join(_SOMETIMES)} aside"]
    lines += [f"  {network:<16}{_short(count):>10} parameters" for network, count in found.parameters.items()]
    sampled = f"{_short(found.volume_flops)}FLOP"
    sampled += f", {found.volume_flops / machine.flops:.3g} s at least" if machine else ""
    lines.append(f"  model in float32 {_bytes(found.model_bytes)}; one sampled volume {sampled}")
    heads = f"{'FLOP a step':>14}{'weights, AdamW':>16}{'activations':>14}{'checkpointed':>14}"
    heads += f"{'s at least':>12}" if machine else ""
    lines.append(f"  {'stage':<12}{heads}   batch {batch}")
    for stage, flops in found.step_flops.items():
        states, kept, less = found.training_bytes[stage], found.activation_bytes[stage], found.checkpointed_bytes[stage]
        columns = f"{_bytes(states):>16}{_bytes(batch * kept):>14}{_bytes(batch * less):>14}"
        if machine:
            step = Work(batch * flops, training_bytes(states // (FLOAT * _TRAINING)))
            columns += f"{machine.least(step):12.3g}"
        lines.append(f"  {stage:<12}{_short(batch * flops):>14}{columns}")
    return lines


def as_json(found: Estimate) -> dict[str, object]:
    """The estimate for a program."""
    return asdict(found)


def _stacks(preset: Preset, n: int) -> dict[str, list[tuple[int, int, int]]]:
    """Stage -> (tokens, width, depth) of each row of transformer blocks that it trains."""
    return {
        "encoder": [
            (_visible(preset, n), preset.encoder_width, preset.encoder_depth),
            (n, preset.mae_decoder_width, preset.mae_decoder_depth),
        ],
        "generator": [(n, preset.generator_width, preset.generator_depth)],
        "trajectory": [(n, preset.generator_width, preset.trajectory_depth)],
    }


def _kept(stage: str, tokens: int, width: int, depth: int) -> int:
    """Floats kept by a row of blocks."""
    return tokens * width * depth * _KEPT[stage]


def _recomputed(stage: str, tokens: int, width: int, depth: int) -> int:
    """Floats kept with checkpointing: every block's input, and one block's own activations while it is done again."""
    return tokens * width * (depth + _KEPT[stage])


def _unneeded(stage: str, preset: Preset, n: int) -> int:
    """Backward arithmetic that never happens: nobody asks for the gradient of a cube or a latent that came from data."""
    entering = preset.latent_width * preset.generator_width
    first = {"encoder": preset.patch_voxels * preset.encoder_width, "generator": entering, "trajectory": 2 * entering}
    return 2 * n * first.get(stage, 0)


def _visible(preset: Preset, n: int) -> int:
    return max(1, round(n * (1 - preset.mask_ratio)))


def _masked_flops(preset: Preset, n: int) -> int:
    v, c, e, k = preset.patch_voxels, preset.encoder_width, preset.mae_decoder_width, _visible(preset, n)
    encoder = 2 * n * v * c + preset.encoder_depth * _block_flops(k, c)
    return encoder + 2 * k * c * e + preset.mae_decoder_depth * _block_flops(n, e) + 2 * n * e * v


def _decoder_flops(preset: Preset, n: int) -> int:
    v, latent, w, cubes = preset.patch_voxels, preset.latent_width, preset.decoder_channels, preset.tokens
    convolutions = cubes * (27 * 2 * w * w + 8 * 27 * w * w + w * v)
    style = prod(preset.shape) * (_TONES + _TISSUES + STYLE_WAVES**3)
    return 2 * (n * latent * v + n * latent * 2 * w + convolutions + style)


def _field_flops(preset: Preset, variables: Variables, n: int, inputs: int, depth: int) -> int:
    """One evaluation of a velocity."""
    g, latent = preset.generator_width, preset.latent_width
    waves = 1 + sum(isinstance(one, Continuous) for one in variables)
    conditions = 2 * WAVES * g * waves + 2 * g * g + 6 * g * g + 2 * g * g
    features = _features([one for one in variables if one is not GAP])
    shift = features * features + features * DIRECTIONS + DIRECTIONS * n * latent
    return 2 * (n * (inputs + latent) * g + conditions + shift) + depth * _block_flops(n, g)


def _features(variables: Variables) -> int:
    """Of the population's shift; braing3n_core.models.population lists them."""
    return 2 * (1 + sum(1 if isinstance(one, Continuous) else len(one.levels) - 1 for one in variables))


def _block_flops(n: int, c: int) -> int:
    return 24 * n * c * c + 4 * n * n * c


def _block(c: int) -> int:
    return 4 * c + _linear(c, 3 * c) + _linear(c, c) + _mlp(c)


def _mlp(c: int) -> int:
    return _linear(c, 4 * c) + _linear(4 * c, c)


def _linear(into: int, out: int) -> int:
    return into * out + out


def _short(count: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} P"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
