"""The gates of a release: each says what it found, what it allows, and, if it stays closed, by how much and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from braing3n_core.errors import DataRefused, GateBlocked
from braing3n_core.likeness import ALLOWANCE, likeness
from braing3n_core.metrics import correlation, mean_pairwise_ms_ssim
from braing3n_core.models.presets import Preset
from braing3n_core.plan import TrainingPlan
from privacy.randomised_response import flip_probability
from server.release.anatomy import Findings, implausible
from server.release.policy import Anatomy, Condition, Diversity, Policy

GATES = ("budget", "copies", "anatomy", "diversity", "condition")      # of every release; approvals are counted at signing
_PAIRS = 200                                                 # of MS-SSIM
_SEED = 1


@dataclass(frozen=True)
class Gate:
    """One gate's verdict. `numbers` are what the words were made of."""

    name: str
    passed: bool
    found: str
    allowed: str
    remedy: str = ""
    applies: bool = True                                     # False: there was nothing to judge, and `found` says why
    numbers: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For gates.json; what is no number is left out."""
        return asdict(self) | {"numbers": {k: v for k, v in self.numbers.items() if math.isfinite(v)}}


class Spent(Protocol):
    """What one site's patients spent of what was agreed."""

    @property
    def site(self) -> str:
        """Its name in the plan."""

    @property
    def epsilon(self) -> float:
        """Over everything that left the site."""

    @property
    def agreed(self) -> float:
        """The most it may be."""


@dataclass(frozen=True)
class Votes:
    """What the sites sent: one bit per candidate and site, the epsilon of the round, and the threshold they held it to."""

    bits: Mapping[str, str]                                  # site -> "0100..."
    epsilon: float
    threshold: float

    def against(self, index: int) -> list[str]:
        """Sites that voted against a candidate."""
        return [site for site, bits in sorted(self.bits.items()) if bits[index] == "1"]


def refuse_closed(gates: Sequence[Gate]) -> None:
    """Raise GateBlocked naming every gate that stays closed, by how much, and what to do. NaN opens no gate."""
    closed = [gate for gate in gates if not gate.passed]
    if closed:
        words = "; ".join(f"{gate.name}: {gate.found}, allowed {gate.allowed}: {gate.remedy}" for gate in closed)
        raise GateBlocked(f"nothing was released: {words}")


def budget(plan: TrainingPlan, privacy: Sequence[Spent]) -> Gate:
    """Every site that reports stayed within what was agreed, and at least one reports.

    A plan without privacy is a rehearsal by construction, and its report says that nothing is promised.
    """
    worst = max(privacy, key=lambda row: row.epsilon, default=None)
    agreed = f"epsilon {plan.privacy.epsilon:.4g} per patient"
    if plan.privacy.mechanism == "non-private":
        return Gate("budget", True, "a rehearsal without privacy; nothing is promised", agreed, applies=False)
    if worst is None:
        return Gate("budget", False, "no site said what it spent", agreed, "give the sites' ledgers")
    over = next((row for row in privacy if not row.epsilon <= row.agreed), None)
    row = over or worst
    found = f"{row.site} spent epsilon {row.epsilon:.3g} of {row.agreed:.3g} agreed"
    return Gate("budget", over is None, found, agreed, "ask its data steward", numbers={"epsilon": row.epsilon})


def copies(plan: TrainingPlan, policy: Policy, votes: Votes | None, candidates: int) -> tuple[Gate, dict[int, str]]:
    """The vote on copies, and which candidates it rejects, with why."""
    rules = policy.rules.copies
    allowed = "no candidate that a site voted against"
    if plan.privacy.vote_epsilon == 0 or (votes is None and plan.rehearsal is not None):
        return Gate("copies", True, "no vote was held: no cost was agreed, or no site was asked", allowed, applies=False), {}
    missing = [site.name for site in plan.sites if votes is None or site.name not in votes.bits]
    if votes is None or (missing and rules.required):
        return Gate("copies", False, f"{', '.join(missing)} did not vote", allowed, "ask again, or lower copies.required"), {}
    if not all(len(bits) == candidates for bits in votes.bits.values()):
        return Gate("copies", False, "a site voted on other candidates", allowed, "ask it to vote on these"), {}
    rejected = {i: f"{' and '.join(votes.against(i))} voted against it" for i in range(candidates) if votes.against(i)}
    noise = flip_probability(votes.epsilon)
    innocent = 1 - (1 - noise) ** len(votes.bits)
    numbers = {
        "candidates": float(candidates), "rejected": float(len(rejected)), "epsilon": votes.epsilon, "vote_lost": noise,
        "innocent_rejected": innocent, "threshold": votes.threshold, "sites": float(len(votes.bits)),
    }  # fmt: skip
    found = f"{len(rejected)} of {candidates} candidates voted out, {innocent * candidates:.1f} are expected from noise alone"
    return Gate("copies", True, found, allowed, numbers=numbers), rejected


def anatomy(rules: Anatomy, findings: Sequence[Findings]) -> tuple[Gate, dict[int, str]]:
    """Which candidates cannot be brains, with why; closed when too many cannot."""
    rejected = {i: why for i, found in enumerate(findings) if (why := implausible(found, rules)) is not None}
    share = len(rejected) / len(findings) if findings else math.nan
    first = f", the first because {next(iter(rejected.values()))}" if rejected else ""
    return Gate(
        "anatomy", share <= rules.most_rejected, f"{len(rejected)} of {len(findings)} candidates cannot be brains{first}",
        f"at most {rules.most_rejected:.0%} of them", "look at the images, then train longer or lower the noise",
        numbers={"rejected": float(len(rejected)), "candidates": float(len(findings))},
    ), rejected  # fmt: skip


def diversity(rules: Diversity, volumes: Mapping[str, Tensor], preset: Preset) -> Gate:
    """No two people of the release are nearly the same, and all together are not one person.

    `volumes` are (n, 1, D, H, W) by modality: images are held against those of their own, and every modality must pass.
    """
    allowed = f"most similar pair {rules.most_similar:g}, mean MS-SSIM {rules.most_mean_similarity:g}"
    found = {name: _alike(images, preset, name) for name, images in volumes.items() if len(images) >= 2}
    if not found:
        return Gate("diversity", True, "one image has nobody to be like", allowed, applies=False)
    words = [
        f"{f'{name}: ' if len(volumes) > 1 else ''}most similar pair {most:.3f}, mean MS-SSIM {mean:.3f}"
        for name, (most, mean) in found.items()
    ]
    most, mean = (float(worst) for worst in np.max(list(found.values()), axis=0))          # NaN is the worst of all
    return Gate(
        "diversity", most <= rules.most_similar and mean <= rules.most_mean_similarity, "; ".join(words), allowed,
        "train longer, or ask for a wider range of people", numbers={"most_similar": most, "mean_ms_ssim": mean},
    )  # fmt: skip


def _alike(volumes: Tensor, preset: Preset, modality: str) -> tuple[float, float]:
    """Likeness of the most similar pair of (n, 1, D, H, W) on T1w's scale, and the mean MS-SSIM of pairs."""
    alike = likeness(volumes, volumes, preset, modality) + np.float32(ALLOWANCE.get(modality, 0.0))
    alike = np.maximum(alike, alike.T)[~np.eye(len(volumes), dtype=bool)]
    return float(np.minimum(alike, 1).max()), mean_pairwise_ms_ssim(volumes, _PAIRS, _SEED)


def condition(rules: Condition, requested: Sequence[float], measured: Sequence[float]) -> Gate:
    """Whether ventricles follow the request."""
    allowed = f"r at least {rules.least_r:g}"
    if len(requested) < rules.least_images:
        found = f"{len(requested)} images had ventricles requested, too few to judge"
        return Gate("condition", True, found, allowed, applies=False)
    try:
        r = correlation(requested, measured)
    except DataRefused:
        r = math.nan
    return Gate(
        "condition", r >= rules.least_r, f"requested against measured ventricles r = {r:.2f}, {len(requested)} images", allowed,
        "train longer, or do not offer this condition", numbers={"r": r, "images": float(len(requested))},
    )  # fmt: skip


def verdict(gates: Sequence[Gate]) -> str:
    """In-toto's word for all of them: PASSED, WARNED when one had nothing to judge, FAILED."""
    if not all(gate.passed for gate in gates):
        return "FAILED"
    return "PASSED" if all(gate.applies for gate in gates) else "WARNED"
