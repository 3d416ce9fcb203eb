"""Two processes that share the patients get what one process with all of them gets, or both refuse; none waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from privacy.dp_sgd import clipped_sum
from privacy.mechanism import l2_norm
from privacy.selftest import probe, probe_loss

BOUND = 0.7
SCENES = ("equal", "nobody here", "other bound", "one refuses")


def model_of(scene: str, rank: int) -> nn.Module:
    model, _ = probe()
    if scene == "one refuses" and rank == 1:
        model.conv.padding_mode = "replicate"
    return model


def told(folder: Path, rank: int) -> None:
    """What one process found, scene by scene, as files in `folder`. Run by the processes below."""
    import torch.distributed as dist

    from privacy.errors import MechanismRefused
    from privacy.spread import share, spread_clipped_sum

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    words = {}
    for scene in SCENES:
        people = probe()[1]
        mine = share(people) if scene != "nobody here" else people if rank else []
        bound = 2 * BOUND if scene == "other bound" and rank else BOUND
        try:
            found = spread_clipped_sum(model_of(scene, rank), mine, probe_loss, bound)
            save_file({"norms": found.norms, **found.total.tensors}, folder / f"{scene} {rank}.safetensors")
        except MechanismRefused as error:
            words[scene] = str(error)
    (folder / f"words {rank}.json").write_text(json.dumps(words))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_are_one_sum_or_none(tmp_path: Path) -> None:
    words = "from pathlib import Path; from tests.privacy.test_spread import told; told(Path({!r}), {})"
    alone = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    both = [subprocess.Popen([sys.executable, "-c", words.format(str(tmp_path), rank)], env=alone) for rank in (0, 1)]
    assert [process.wait(timeout=800) for process in both] == [0, 0]

    model, people = probe()
    for scene, order in (("equal", [*people[0::2], *people[1::2]]), ("nobody here", people)):
        truth = clipped_sum(model, order, probe_loss, BOUND, "loop")
        for rank in (0, 1):
            found = load_file(tmp_path / f"{scene} {rank}.safetensors")
            assert torch.allclose(found.pop("norms"), truth.norms, rtol=1e-5, equal_nan=True)
            apart = l2_norm({name: found[name] - truth.total.tensors[name] for name in found})
            assert apart <= 1e-5 * l2_norm(truth.total.tensors)
    refused = [json.loads((tmp_path / f"words {rank}.json").read_text()) for rank in (0, 1)]
    assert all("different bounds" in one["other bound"] for one in refused)
    assert "another process" in refused[0]["one refuses"]
    assert "padding_mode" in refused[1]["one refuses"]
    assert all(set(one) == {"other bound", "one refuses"} for one in refused)
