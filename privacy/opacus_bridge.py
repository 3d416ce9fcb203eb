"""The only file that knows Opacus: its PRV accountant and its per-row gradient hooks.

Its GDP accountant is up to 8 % too low and is not used; its optimizers clip rows, not patients, and are not used either.
Opacus is imported where it is used: it takes seconds to load, and most commands need none of it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from torch import Tensor, nn

from privacy.renyi import converted, sampled_gaussian

if TYPE_CHECKING:
    from opacus.accountants.analysis.prv import Domain

Segment = tuple[float, float, int]                           # noise multiplier, sample rate, steps
_EPS_ERROR: Final = 0.01


def prv_epsilon(history: Sequence[Segment], delta: float) -> float:
    """Epsilon of the composed steps by the PRV accountant (Gopi et al., arXiv 2106.02848), its error of 0.01 included.

    An empty history costs 0; Opacus itself raises on it. Opacus' parts, but the range of losses to look at comes from
    privacy/renyi.py: Opacus' own Renyi bound takes most of the time of a history with many different steps.
    """
    if not history:
        return 0.0
    from opacus.accountants.analysis.prv import (  # noqa: PLC0415
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        discretize,
    )

    with _known_warnings_quiet():
        domain = _domain(history, delta / 1000)
        losses = [TruncatedPrivacyRandomVariable(PoissonSubsampledGaussianPRV(rate, sigma), domain.t_min, domain.t_max)
                  for sigma, rate, _ in history]             # fmt: skip
        composed = compose_heterogeneous([discretize(loss, domain) for loss in losses], [steps for _, _, steps in history])
        upper = float(composed.compute_epsilon(delta, delta / 1000, _EPS_ERROR)[2])
    return upper if math.isfinite(upper) else math.inf


def _domain(history: Sequence[Segment], delta_error: float) -> Domain:
    """Losses to look at, and in what steps, by remark 5.6 of Gopi et al.; any wider range is as safe."""
    from opacus.accountants.analysis.prv import Domain  # noqa: PLC0415

    steps = sum(count for _, _, count in history)
    whole = np.sum([count * sampled_gaussian(sigma, rate) for sigma, rate, count in history], axis=0)
    single = [converted(sampled_gaussian(sigma, rate), delta_error / (8 * steps)) for sigma, rate, _ in history]
    widest = max(converted(whole, delta_error / 4), *single, _EPS_ERROR) + 3
    return Domain.create_aligned(-widest, widest, _EPS_ERROR / math.sqrt(steps * math.log(12 / delta_error) / 2))


def row_gradients(model: nn.Module, total_loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """Gradient of each row's loss, (rows, *parameter shape) by parameter name, from Opacus' hooks on a copy of `model`.

    `total_loss` is the SUM of row losses of one batch under the module it is given. Limits of Opacus 1.6 that this
    inherits: no BatchNorm, no padding mode but zeros, no randomness in forward.
    """
    from opacus.grad_sample import GradSampleModule  # noqa: PLC0415

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
