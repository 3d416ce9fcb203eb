"""Distances in MedicalNet's space: its networks are known by their weights, and another file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet
from torch import Tensor, nn

from braing3n_core.errors import DataRefused, IntegrityError
from braing3n_core.prior import SHIPPED, read_prior
from braing3n_core.state import save
from simulations import distances
from simulations.medicalnet import features, medicalnet


def network(depth: int) -> nn.Module:
    bias, shortcut = resnet.get_medicalnet_pretrained_resnet_args(depth)
    torch.manual_seed(0)
    made: nn.Module = getattr(resnet, f"resnet{depth}")(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type=shortcut, bias_downsample=bias
    )
    return made.eval()


def written(path: Path, made: nn.Module) -> Path:
    """As MedicalNet names its tensors."""
    save(path, {f"module.{name}": tensor for name, tensor in made.state_dict().items()})
    return path


def heads(count: int) -> Tensor:
    volumes = torch.rand(count, 1, 24, 32, 28, generator=torch.Generator().manual_seed(1)) + 0.2
    volumes[:, :, :6] = 0
    return volumes


@pytest.mark.parametrize(("depth", "width"), [(10, 512), (18, 512), (50, 2048)])
def test_a_network_is_known_by_its_weights(tmp_path: Path, depth: int, width: int) -> None:
    made = network(depth)
    found = medicalnet(written(tmp_path / "any-name.safetensors", made))
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), made.state_dict().values(), strict=True))
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert features(found, heads(5)).shape == (5, width)


@pytest.mark.parametrize("depth", [10, 18, 50])
def test_strides_and_dilations_are_medicalnets_and_the_last_maps_are_an_eighth_of_the_sides(tmp_path: Path, depth: int) -> None:
    found = medicalnet(written(tmp_path / "w.safetensors", network(depth)))
    assert found.conv1.stride == (2, 2, 2)
    sizes: list[tuple[int, ...]] = []
    for layer, dilation in (("layer2", 1), ("layer3", 2), ("layer4", 4)):
        convolutions = [one for one in found.get_submodule(layer).modules() if isinstance(one, nn.Conv3d)]
        wide = [one for one in convolutions if one.kernel_size == (3, 3, 3)]
        assert {one.dilation for one in wide} == {one.padding for one in wide} == {(dilation,) * 3}
        found.get_submodule(layer).register_forward_hook(lambda _, __, seen: sizes.append(tuple(seen.shape[2:])))
    features(found, heads(1))
    assert sizes == [(3, 4, 4)] * 3, "from 24, 32 and 28"


def test_the_unit_of_brightness_does_not_matter_and_background_stays_zero(tmp_path: Path) -> None:
    found, volumes = medicalnet(written(tmp_path / "w.safetensors", network(10))), heads(2)
    np.testing.assert_allclose(features(found, 7 * volumes), features(found, volumes), rtol=1e-3, atol=1e-4)
    with pytest.raises(DataRefused, match="without signal"):
        features(found, torch.zeros(1, 1, 24, 32, 28))


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "resnet_10.pth")
    with pytest.raises(IntegrityError, match="not a whole safetensors file"):
        medicalnet(tmp_path / "resnet_10.pth")
    with pytest.raises(DataRefused, match="holds no MedicalNet"):
        medicalnet(SHIPPED / "tiny.safetensors")
    tensors = network(10).state_dict()
    del tensors["conv1.weight"]
    save(tmp_path / "cut.safetensors", tensors)
    with pytest.raises(DataRefused, match=r"no MedicalNet of depth 10: .*conv1\.weight"):
        medicalnet(tmp_path / "cut.safetensors")


@pytest.mark.slow
def test_both_spaces_are_in_the_table(tmp_path: Path) -> None:
    model = read_prior(SHIPPED / "tiny.safetensors")
    weights = written(tmp_path / "w.safetensors", network(10))
    found = distances.distances(model, 8, 2, weights, lambda _: None)
    assert [(row.space, row.statistic) for row in found] == [
        ("encoder", "KID"), ("encoder", "Frechet"), ("MedicalNet", "KID"), ("MedicalNet", "Frechet")
    ]  # fmt: skip
    assert all(row.low <= row.value <= row.high and row.rows == 4 for row in found)
    distances.write(found, tmp_path / "distances.json")
    assert json.loads((tmp_path / "distances.json").read_text())[2]["space"] == "MedicalNet"
    assert len(distances.told(found)) == 6
