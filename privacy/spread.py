"""One clipped sum over several processes, each with a share of the patients: one for every GPU of a machine.

The clipped sum is a sum, so shares add up to it. Start the processes with `torchrun --nproc-per-node N`, put a copy of the
model on each one's device, and begin a process group (gloo for processors, nccl for GPUs) before the first call. Who releases
adds the noise, once and in one process: `privacy.mechanism.add_noise` of the total. Docs: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from privacy.dp_sgd import ClippedSum, Engine, RowLoss, Rows, clipped_sum, trainable
from privacy.errors import MechanismRefused
from privacy.mechanism import Bounded

Key = TypeVar("Key")


def share(patients: Sequence[Key], group: dist.ProcessGroup | None = None) -> list[Key]:
    """This process's patients of a list that all processes of the group have alike: every patient in one share."""
    return list(patients[dist.get_rank(group) :: dist.get_world_size(group)])


def spread_clipped_sum(
    model: nn.Module,
    patients: Sequence[Rows],
    row_loss: RowLoss,
    l2_bound: float,
    engine: Engine = "fast",
    group: dist.ProcessGroup | None = None,
) -> ClippedSum:
    """In every process, the clipped sum over ALL processes' patients and their norms. `patients`: this one's.

    Guarantee: that of `clipped_sum` for the patients of all shares, as long as no patient is in two of them, and whatever the
    weights of the others' models are. Equal to `clipped_sum` of them all, share after share, to float32 rounding where the
    weights are equal. All processes of the group must call it, with one bound and the same trainable tensors. Where one fails,
    or bounds differ, all raise, the others MechanismRefused, and nobody waits for an answer.
    """
    try:
        mine = clipped_sum(model, patients, row_loss, l2_bound, engine)
    except Exception:
        _agree(None, model, group)                           # the others must not wait for a share that will not come
        raise
    _agree(l2_bound, model, group)
    total = {name: tensor.contiguous() for name, tensor in mine.total.tensors.items()}
    for tensor in total.values():
        dist.all_reduce(tensor, group=group)
    return ClippedSum(Bounded(total, l2_bound), _gathered(mine.norms, model, group))


def _agree(l2_bound: float | None, model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Refuse unless every process has a sum to add, under one bound and of one size. `None` is a process that has none."""
    size = sum(parameter.numel() for parameter in trainable(model).values())
    mine = torch.tensor([float(l2_bound is None), l2_bound or 0.0, size], dtype=torch.float64, device=_device(model))
    least, most = mine.clone(), mine.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN, group)
    dist.all_reduce(most, dist.ReduceOp.MAX, group)
    if l2_bound is None:
        return
    if most[0] > 0:
        raise MechanismRefused("another process of this sum has no share to add; its own message says why")
    if not torch.equal(least, most):
        raise MechanismRefused("the processes of one sum clip to different bounds or train different tensors; make them one")


def _gathered(norms: Tensor, model: nn.Module, group: dist.ProcessGroup | None) -> Tensor:
    """(P,) of this process -> (P of all,), in the order of ranks."""
    rank, device = dist.get_rank(group), _device(model)
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=device)
    counts[rank] = len(norms)
    dist.all_reduce(counts, group=group)
    all_norms = torch.zeros(int(counts.sum()), dtype=torch.float64, device=device)
    start = int(counts[:rank].sum())
    all_norms[start : start + len(norms)] = norms.to(device)
    dist.all_reduce(all_norms, group=group)                  # zeros beside each: NaN and infinite stay what they are
    return all_norms.cpu()


def _device(model: nn.Module) -> torch.device:
    return next(iter(model.parameters())).device
