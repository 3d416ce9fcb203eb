"""Invariants of one DP-SGD step, tried on the step itself: what has to be true of the code before an epsilon means anything.

A broken step is caught here in a fraction of a second, and sharply: sensitivity exactly, the rest by exact tests whose false
alarms are counted. What no invariant looks at, the canary audit (privacy/audit.py) looks for as an attacker would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import torch
from scipy.stats import binom, chi2, norm, t
from torch import Tensor, nn

from privacy.dp_sgd import Rows
from privacy.events import SampledGaussian
from privacy.mechanism import Tensors
from privacy.steps import DpSgd, GaussianStep

FALSE_ALARM: Final = 1e-6                                    # chance that one whole self-test fails on a correct step
_ALPHA: Final = FALSE_ALARM / 8                              # eight of the invariants are statistical, six of a sum's
_BOUND: Final = 0.7                                          # clipping bound, not 1, so that a forgotten factor shows
_EVENT: Final = SampledGaussian("selftest", 3.5, 0.25, 1)


@dataclass(frozen=True)
class Finding:
    """One invariant: its name, whether it holds, and the numbers that say so."""

    invariant: str
    holds: bool
    found: str


@dataclass(frozen=True)
class SelfTest:
    """Every invariant's finding, in a fixed order."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether all invariants hold."""
        return all(finding.holds for finding in self.findings)


def run(step: GaussianStep | None = None) -> SelfTest:
    """Try `step` (the real one, if none is given) against every invariant.

    Guarantee: a step that is what privacy/dp_sgd.py promises fails with probability at most FALSE_ALARM. Uses made-up
    patients and a small network of its own; nothing of a site is read, nothing is charged, nothing is kept.
    """
    chosen = DpSgd() if step is None else step
    invariants: tuple[Callable[[GaussianStep], list[Finding]], ...] = (_sensitivity, _noise, _two_draws, _participation)
    return SelfTest(tuple(finding for invariant in invariants for finding in invariant(chosen)))


class Probe(nn.Module):
    """Each kind of layer that the project's models are made of, on rows (K, 4, 6); 22,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(6, 200)
        self.norm = nn.LayerNorm(200)
        self.mix = nn.Linear(200, 100)
        self.conv = nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(K, 4, 6) -> (K, 3, 5, 5, 4)."""
        tokens = self.mix(self.norm(nn.functional.gelu(self.widen(x))))      # (K, 4, 100)
        out: Tensor = self.conv(tokens.view(len(x), 4, 5, 5, 4))
        return out


def probe_loss(model: nn.Module, rows: Rows) -> Tensor:
    """(K,), steep enough that every gradient is far above the clipping bound."""
    out: Tensor = model(rows[0])
    return (30 * out - 100).square().flatten(1).mean(1)


def probe() -> tuple[Probe, list[Rows]]:
    """A network and six patients with one to four alike scans each, one of them all NaN. The same at every call."""
    generator = torch.Generator().manual_seed(20260101)
    model = Probe()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    people: list[Rows] = []
    for scans in (1, 4, 2, 3, 1):
        anatomy = torch.randn((1, 4, 6), generator=generator)
        people.append((anatomy + 0.05 * torch.randn((scans, 4, 6), generator=generator),))
    return model, [*people, (torch.full((2, 4, 6), math.nan),)]


def _sensitivity(step: GaussianStep) -> list[Finding]:
    """Without noise, leaving out any one patient, with all scans, moves the sum by at most the clipping bound."""
    model, people = probe()
    whole = _flat(step.clipped_sum(model, people, probe_loss, _BOUND))
    moved = [
        float((whole - _flat(step.clipped_sum(model, people[:i] + people[i + 1 :], probe_loss, _BOUND))).norm())
        for i in range(len(people))
    ]
    holds = all(distance <= _BOUND * (1 + 1e-5) for distance in moved)       # NaN fails too
    return [Finding("sensitivity", holds, f"one patient moves the sum by up to {max(moved):.6g}, allowed {_BOUND:g}")]


def _noise(step: GaussianStep) -> list[Finding]:
    """With nobody in the batch the step is independent Gaussian noise of the accounted size, new every time."""
    model, _ = probe()
    steps = [_flat(step.private_gradient(model, [], probe_loss, _BOUND, _EVENT)) for _ in range(4)]
    values, deviation = torch.cat(steps), _EVENT.noise_multiplier * _BOUND
    half, size = len(steps[0]) // 2, f"standard deviation {values.std():.4f}, accounted {deviation:.4f}"
    between = [correlated(a, b) for a, b in combinations(steps, 2)]
    within = [correlated(noise[:half], noise[half : 2 * half]) for noise in steps]
    return [
        tested("noise size", variance_p(values, deviation), size),
        tested("noise shape", _gaussian_p(values / deviation), "distance from the Gaussian distribution function"),
        tested("noise between steps", min(1.0, len(between) * min(between)), "correlation between any two steps"),
        tested("noise within a step", min(1.0, len(within) * min(within)), "correlation between the halves of a step"),
    ]


def _two_draws(step: GaussianStep) -> list[Finding]:
    """On one batch of patients, two steps differ by noise alone: the noise must not depend on who is in the batch."""
    model, people = probe()
    first, second = (_flat(step.private_gradient(model, people, probe_loss, _BOUND, _EVENT)) for _ in range(2))
    deviation = math.sqrt(2) * _EVENT.noise_multiplier * _BOUND
    found = f"standard deviation of the difference {(first - second).std():.4f}, accounted {deviation:.4f}"
    return [tested("noise beside patients", variance_p(first - second, deviation), found)]


def _participation(step: GaussianStep) -> list[Finding]:
    """Every patient joins every step by a coin of its own, of the accounted rate.

    Eight patients, few enough that batches of a fixed size, or a shuffle that passes everyone once an epoch, show: how often
    two patients, and one patient twice running, join together is Binomial(trials, rate^2).
    """
    rate, steps, people = _EVENT.sample_rate, 1500, 8
    joined = torch.zeros((steps, people), dtype=torch.bool)
    for row in joined:
        row[step.draw(range(people), rate)] = True
    couples = joined[:, ::2] & joined[:, 1::2]
    running = joined[::2] & joined[1::2]
    return [
        _counted("participation", joined, rate),
        _counted("participation of couples", couples, rate**2),
        _counted("participation twice running", running, rate**2),
    ]


def _counted(invariant: str, coins: Tensor, chance: float) -> Finding:
    heads, trials = int(coins.sum()), coins.numel()
    p = 2 * min(binom.cdf(heads, trials, chance), binom.sf(heads - 1, trials, chance))
    return tested(invariant, float(p), f"{heads / trials:.4f} of {trials} joined, accounted {chance:.4f}")


def tested(invariant: str, p: float, found: str) -> Finding:
    """`p` is exact, or above the exact value, so that correct code fails it with probability at most _ALPHA."""
    return Finding(invariant, p >= _ALPHA, f"{found} (p={min(p, 1.0):.2g})")


def variance_p(values: Tensor, deviation: float) -> float:
    """Two-sided: sum of squares over deviation^2 is chi-square with len(values) degrees of freedom."""
    total, count = float(values.square().sum()) / deviation**2, len(values)
    return float(2 * min(chi2.cdf(total, count), chi2.sf(total, count))) if math.isfinite(total) else 0.0


def _gaussian_p(values: Tensor) -> float:
    """An upper bound of the p-value of the distribution function's largest error (Massart, Ann. Probab. 18, 1990)."""
    ranks = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    expected = torch.from_numpy(norm.cdf(values.sort().values.numpy()))
    distance = float(torch.maximum((expected - ranks[:-1]).abs(), (expected - ranks[1:]).abs()).max())
    return 2 * math.exp(-2 * len(values) * distance**2) if math.isfinite(distance) else 0.0


def correlated(a: Tensor, b: Tensor) -> float:
    """Two-sided: given `a`, r of independent Gaussian noise follows Student's t with len(a) - 1 degrees of freedom."""
    r = float((a @ b) / (a.norm() * b.norm()))
    if not abs(r) < 1:
        return 0.0
    return float(2 * t.sf(abs(r) * math.sqrt((len(a) - 1) / (1 - r**2)), len(a) - 1))


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors.values()])
