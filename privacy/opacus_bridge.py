"""The only file that knows Opacus: its PRV and RDP accountants and its per-row gradient hooks.

Its GDP accountant is up to 8 % too low and is not used; its optimizers clip rows, not patients, and are not used either.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

Segment = tuple[float, float, int]                           # noise multiplier, sample rate, steps


def prv_epsilon(history: Sequence[Segment], delta: float) -> float:
    """Epsilon of the composed steps by the PRV accountant (Gopi et al., arXiv 2106.02848), within its error of 0.01.

    An empty history costs 0; Opacus itself raises on it.
    """
    return _epsilon(PRVAccountant(), history, delta)


def rdp_epsilon(history: Sequence[Segment], delta: float) -> float:
    """Epsilon of the composed steps by Renyi accounting (Mironov, arXiv 1702.07476): 7 to 11 % above PRV, and fast."""
    return _epsilon(RDPAccountant(), history, delta)


def _epsilon(accountant: PRVAccountant | RDPAccountant, history: Sequence[Segment], delta: float) -> float:
    if not history:
        return 0.0
    accountant.history = list(history)
    with _known_warnings_quiet():
        epsilon = float(accountant.get_epsilon(delta=delta))
    return epsilon if math.isfinite(epsilon) else math.inf


def row_gradients(model: nn.Module, total_loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """Gradient of each row's loss, (rows, *parameter shape) by parameter name, from Opacus' hooks on a copy of `model`.

    `total_loss` is the SUM of row losses of one batch under the module it is given. Limits of Opacus 1.6 that this
    inherits: no BatchNorm, no padding mode but zeros, no randomness in forward.
    """
    hooked = copy.deepcopy(model)
    GradSampleModule(hooked, loss_reduction="sum")           # hooks every leaf of `hooked`; the wrapper itself is not needed
    with _known_warnings_quiet():
        total_loss(hooked).backward()
    parameters = {name: p for name, p in hooked.named_parameters() if p.requires_grad}
    return {name: p.grad_sample for name, p in parameters.items()}  # type: ignore[attr-defined]  # set by Opacus' hooks


@contextmanager
def _known_warnings_quiet() -> Iterator[None]:
    """Three warnings that were looked into and change no result; anything else still surfaces."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):       # log(0) of an impossible order
        # RDP only sizes the PRV grid here, and the RDP number itself is printed as a loose bound.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        # The first layer's input carries no gradient, as for any model fed with data.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
