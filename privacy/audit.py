"""A canary audit in one run: how much an attacker who sees every step learns, against what the accountant claims.

Each canary is a patient who is in or out by a coin and whose gradient points along a coordinate nobody else uses. The attacker
sees all released gradients and guesses the coins. Many right guesses refute a claimed epsilon; few prove nothing, so an audit
finds broken code and never certifies private code. It is run at a low epsilon, where a fault shows: at epsilon 8 even a
perfect attack on 2000 canaries cannot refute the claim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from privacy.accountant import epsilon
from privacy.dp_sgd import Rows
from privacy.errors import MechanismRefused
from privacy.events import SampledGaussian, SecureSummed
from privacy.lower_bounds import Guesses, covering_mu, gaussian_epsilon, gaussian_mu, one_run_epsilon, one_run_mu
from privacy.steps import DpSgd, GaussianStep, SumOverSites, private_steps

_FEATURES: Final = 8
_SCANS: Final = 4
BOUND: Final = 1.0
_LEARNING_RATE: Final = 1e-3                                # the body is to move, as in training
_LOW: Final = SampledGaussian("audit", 3.5, 0.25, 40)
_LOUD: Final = 100.0                                         # a canary's gradient, far above the clipping bound
_DELTAS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


@dataclass(frozen=True)
class Setting:
    """What is audited. The default claims epsilon 1.94 at delta 1e-5, low enough for a factor of two to show."""

    canaries: int = 1000
    patients: int = 60                                       # real ones, always in, four scans each
    event: SampledGaussian | SecureSummed = _LOW
    delta: float = 1e-5
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not (self.canaries >= 100 and self.patients >= 1):
            raise MechanismRefused("an audit needs at least 100 canaries and one patient; fewer can refute nothing")
        if not 0 < self.confidence < 1:
            raise MechanismRefused(f"confidence {self.confidence} must be between 0 and 1; 0.95 is usual")


@dataclass(frozen=True)
class Audit:
    """Claimed against measured, all at `delta`. Lower bounds hold with the setting's confidence, each family by itself.

    `one_run` holds for every (epsilon, delta)-private step and `f_dp` for every step at least as private as a Gaussian one
    (`covering` is the claim in those terms); both are certificates. `gaussian` takes the canaries of one run for
    independent experiments, which is sharper and not proved: a warning.
    """

    claimed: float
    covering: float
    one_run: float
    f_dp: float
    gaussian: float
    delta: float

    @property
    def refuted(self) -> bool:
        """The claim is false, with the stated confidence."""
        return not (self.one_run <= self.claimed and self.f_dp <= self.covering)

    @property
    def warned(self) -> bool:
        """The attack did better than the claim allows, by a bound that is not proved for one run."""
        return not self.gaussian <= self.covering


def audit(step: GaussianStep | SumOverSites | None = None, setting: Setting | None = None) -> Audit:
    """Attack `step` (DpSgd, if none is given): loss, gradient, clip, Poisson batch, noise, descent, as in training.

    `setting.event` is what `step` says it costs; for a secure sum its size is that of `numbers`.

    Made-up patients and a small network of its own; nothing of a site is read or charged. Takes seconds.
    """
    chosen, at = DpSgd() if step is None else step, Setting() if setting is None else setting
    coins = np.frombuffer(os.urandom(at.canaries), dtype=np.uint8) % 2 == 1
    seen = _released(chosen, at, coins)
    guesses = [Guesses(score, coins) for score in (seen.sum(0), seen.var(0))]
    alpha = (1 - at.confidence) / len(guesses)
    return Audit(
        claimed=epsilon([at.event], at.delta),
        covering=gaussian_epsilon(covering_mu([(epsilon([at.event], delta), delta) for delta in _DELTAS]), at.delta),
        one_run=max(one_run_epsilon(guess, at.delta, alpha) for guess in guesses),
        f_dp=gaussian_epsilon(max(one_run_mu(guess, alpha) for guess in guesses), at.delta),
        gaussian=gaussian_epsilon(max(gaussian_mu(guess, alpha) for guess in guesses), at.delta),
        delta=at.delta,
    )


def numbers(canaries: int) -> int:
    """How many numbers a step of the audit's network makes."""
    return sum(parameter.numel() for parameter in _Net(canaries).parameters())


class _Net(nn.Module):
    """A small autoencoder, and a weight for every canary beside it."""

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(_FEATURES, 4), nn.GELU(), nn.Linear(4, _FEATURES))
        self.canaries = nn.Linear(canaries, 1, bias=False)


def _loss(model: nn.Module, rows: Rows) -> Tensor:
    """(K,) of features (K, 8) and canary codes (K, canaries)."""
    if not isinstance(model, _Net):
        raise MechanismRefused("the audit's loss is for the audit's network")
    features, codes = rows
    error: Tensor = (model.body(features) - features).square().mean(1)
    codes_out: Tensor = model.canaries(codes).squeeze(-1)
    return error + codes_out


def _cohort(setting: Setting, coins: np.ndarray) -> list[Rows]:
    """Real patients with data and no code; canaries whose coin says so with a code and no data."""
    nobody = torch.zeros(setting.canaries)
    people: list[Rows] = [(torch.randn(_SCANS, _FEATURES), nobody.expand(_SCANS, -1)) for _ in range(setting.patients)]
    for place in np.flatnonzero(coins).tolist():
        code = nobody.clone()
        code[place] = _LOUD
        people.append((torch.zeros(_SCANS, _FEATURES), code.expand(_SCANS, -1)))
    return people


def _released(step: GaussianStep | SumOverSites, setting: Setting, coins: np.ndarray) -> np.ndarray:
    """(steps, canaries): the canaries' coordinates of every gradient that left."""
    model, people, event = _Net(setting.canaries), _cohort(setting, coins), setting.event
    seen = np.zeros((event.steps, setting.canaries))
    for number, gradient in enumerate(_gradients(step, event, model, people, setting.patients)):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(_LEARNING_RATE * gradient[name])
        seen[number] = gradient["canaries.weight"].flatten().numpy()
    return seen


def _gradients(
    step: GaussianStep | SumOverSites, event: SampledGaussian | SecureSummed, model: _Net, people: list[Rows], declared: int
) -> Iterator[dict[str, Tensor]]:
    """What leaves, step by step. Refuses an event that is not what the step says it costs."""
    if isinstance(step, SumOverSites) and isinstance(event, SecureSummed):
        return private_steps(step, event, model, people, lambda rows: rows, _loss, BOUND, declared)
    if isinstance(step, SumOverSites) or isinstance(event, SecureSummed):
        raise MechanismRefused("a secure sum is audited with the event of a secure sum, and other steps with their own")
    return private_steps(step, event, model, people, lambda rows: rows, _loss, BOUND, declared)
