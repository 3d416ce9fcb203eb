"""The least that this machine could take: a step's arithmetic at the speed of matrix products, its bytes at that of a copy.

The roofline model (Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009): a program that does this
arithmetic, and whose bytes come from memory, is not sooner than the longer of the two. Arithmetic is matrix products,
convolutions and attention, a multiplication and an addition counted as two; bytes are those that have to move once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FLOAT = 4                                                    # bytes
_SIDE = 1024                                                 # of the product: its three matrices are 12 MB
_COPIED = 2**26                                              # numbers, 256 MB: more than caches hold
_TRIES = 8                                                   # the best of them: others share the machine
_TRAINING = 10                                               # passes over the weights of a step of AdamW, see `training_bytes`


@dataclass(frozen=True)
class Work:
    """What has to be done, whoever does it."""

    flops: float
    bytes: float

    def __rmul__(self, times: float) -> Work:
        return Work(times * self.flops, times * self.bytes)


@dataclass(frozen=True)
class Machine:
    """What a number of threads here can do, measured; both are per second of the clock that was used."""

    threads: int
    flops: float                                             # of a product of square matrices, float32
    bytes: float                                             # read and written, of a copy that no cache holds

    @classmethod
    def measured(cls, threads: int, clock: Callable[[], float] = time.process_time) -> Machine:
        """The best of a few tries on so many threads. With the processor's clock, threads' seconds add up."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            left, right = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
            product = _best(lambda: left @ right, clock)
            source, target = torch.zeros(_COPIED), torch.ones(_COPIED)
            copied = _best(lambda: target.copy_(source), clock)
        finally:
            torch.set_num_threads(before)
        return cls(threads, 2 * _SIDE**3 / product, 2 * FLOAT * _COPIED / copied)

    def least(self, work: Work) -> float:
        """Seconds that `work` takes here at least."""
        return max(work.flops / self.flops, work.bytes / self.bytes)

    def told(self) -> str:
        """A line for people."""
        return f"floor: {self.flops / 1e9:.0f} GFLOP/s, {self.bytes / 1e9:.0f} GB/s, {self.threads} thread(s)"


def flops(step: Callable[[], object]) -> float:
    """Arithmetic of one call of `step`. Attention is taken apart meanwhile, as torch counts no other on a processor."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return float(counter.get_total_flops())


def training_bytes(weights: int) -> float:
    """Of a step of AdamW: weights read forward and back, gradients written and read, weights and two moments both."""
    return FLOAT * _TRAINING * weights


def _best(step: Callable[[], object], clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(_TRIES):
        began = clock()
        step()
        taken.append(clock() - began)
    return min(taken)
