"""Features of MedicalNet (Chen et al., arXiv 1904.00625), where the operator has its weights. Nothing is fetched.

The networks are MONAI's with MedicalNet's strides and dilations, which no file of weights holds. Weights come as safetensors,
because MedicalNet's own files are pickles; docs/simulate.md says how to turn one into the other. Volumes enter as MedicalNet's
training saw them: mean 0 and deviation 1 over what is not background, which stays 0 here and was noise there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from monai.networks.nets import resnet
from torch import Tensor, nn

from braing3n_core.errors import DataRefused
from braing3n_core.state import load

_TOGETHER = 4                                                # volumes at once
_DEPTHS: Final[Mapping[tuple[tuple[int, ...], bool], int]] = {     # blocks of each stage, and whether they are bottlenecks
    ((1, 1, 1, 1), False): 10, ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34, ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101, ((3, 8, 36, 3), True): 152, ((3, 24, 36, 3), True): 200,
}  # fmt: skip


def medicalnet(weights: Path) -> nn.Module:
    """The network whose weights these are, frozen. Raises IntegrityError or DataRefused for another file."""
    tensors = {name.removeprefix("module."): tensor for name, tensor in load(weights)[0].items()}
    depth = _DEPTHS.get((_blocks(tensors), "layer1.0.conv3.weight" in tensors))
    if depth is None:
        raise DataRefused(f"{weights.name} holds no MedicalNet: its stages are those of no ResNet; give resnet_10 to 200")
    bias, shortcut = resnet.get_medicalnet_pretrained_resnet_args(depth)
    network: nn.Module = getattr(resnet, f"resnet{depth}")(
        spatial_dims=3, n_input_channels=1, conv1_t_stride=2, feed_forward=False, shortcut_type=shortcut, bias_downsample=bias
    )
    for stage, dilation in (("layer3", 2), ("layer4", 4)):
        _dilate(network.get_submodule(stage), dilation)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataRefused(f"{weights.name} is no MedicalNet of depth {depth}: {' '.join(str(error).split())[:200]}") from error
    return network.eval().requires_grad_(False)


@torch.no_grad()
def features(network: nn.Module, volumes: Tensor) -> np.ndarray:
    """(n, 1, D, H, W) volumes, zero outside the brain -> (n, 512) float64, or (n, 2048) of a network of 50 layers and more."""
    parts = [network(torch.stack([_standard(volume) for volume in part])) for part in volumes.split(_TOGETHER)]
    return torch.cat(parts).double().numpy()


def _dilate(stage: nn.Module, dilation: int) -> None:
    """The third and fourth stage keep their size and see as far by dilation (MedicalNet's `resnet.py`)."""
    block: Any                                               # MONAI's, with a shortcut of either kind
    for block in stage.children():
        for one in block.modules():
            if isinstance(one, nn.Conv3d):
                one.stride = (1, 1, 1)
                if one.kernel_size == (3, 3, 3):
                    one.dilation = one.padding = (dilation,) * 3
        if isinstance(block.downsample, partial):            # a shortcut without weights has a stride of its own
            block.downsample = partial(block.downsample.func, **{**block.downsample.keywords, "stride": 1})


def _blocks(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    return tuple(len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4))


def _standard(volume: Tensor) -> Tensor:
    inside = volume > 0
    if not int(inside.sum()) > 1:
        raise DataRefused("a volume without signal has no features; check that it was generated whole")
    known = volume[inside]
    return torch.where(inside, (volume - known.mean()) / known.std().clamp_min(torch.finfo(known.dtype).eps), 0.0)
