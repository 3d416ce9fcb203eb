"""Can somebody tell from a model or a cohort who was in the training data? One attack, its control, and its baseline.

The attacker has a score of each patient, high for "was in" (say the negative loss of a generator, or the closeness of the
nearest released volume). Members of the training set, outsiders of the same hospitals, and a third group that only sets the
threshold are scored alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from privacy.errors import MechanismRefused


@dataclass(frozen=True)
class Rate:
    """A share, with an interval that contains the true one at the stated confidence."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Rate:
    """Wilson's score interval of `successes` in `trials`. Never outside [0, 1] and never empty, unlike the normal one."""
    if not (0 <= successes <= trials and trials >= 1 and 0 < confidence < 1):
        raise MechanismRefused(f"no interval for {successes} of {trials} at confidence {confidence}; count at least one trial")
    z, share = float(ndtri((1 + confidence) / 2)), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At 0 and 1 the interval ends there exactly; rounding must not say otherwise.
    return Rate(share, 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


@dataclass(frozen=True)
class Membership:
    """What one attack achieved. `baseline` is what guessing achieves, by the choice of the threshold.

    A share of members above the control's, beyond chance, is what training leaked; a control far from the baseline means
    that the groups differ in something else and the attack says nothing.
    """

    attack: Rate                                             # members above the threshold: true positives
    control: Rate                                            # outsiders above it: false positives
    baseline: float                                          # false positives that the threshold was set for
    auc: Rate                                                # chance that a member scores above an outsider; 0.5 is guessing

    @property
    def risk(self) -> float:
        """(attack - control) / (1 - control), at least 0: the share of members given away by training alone."""
        left = 1 - self.control.value
        return max(0.0, (self.attack.value - self.control.value) / left) if left > 0 else 0.0

    @property
    def leaks(self) -> bool:
        """Whether the attack beats its control beyond both intervals."""
        return self.attack.low > self.control.high


def membership(
    members: np.ndarray, outsiders: np.ndarray, reference: np.ndarray, false_positives: float = 0.01, confidence: float = 0.95
) -> Membership:
    """Attack at the threshold that lets `false_positives` of `reference` through; all scores (n,), finite.

    At low false positives because an attack that is sure of few patients harms them although it is blind on average
    (Carlini et al., arXiv 2112.03570). The threshold comes from a group that is not counted, so that neither rate is tuned.
    """
    for group in (members, outsiders, reference):
        if not (group.ndim == 1 and len(group) >= 2 and np.isfinite(group).all()):
            raise MechanismRefused("membership scores are one finite number per patient, at least two patients in each group")
    if not 1 / len(reference) <= false_positives < 1:
        raise MechanismRefused(f"{len(reference)} reference patients cannot set a threshold for {false_positives:g}; take more")
    threshold = np.sort(reference)[len(reference) - int(false_positives * len(reference))]
    return Membership(
        attack=wilson(int((members >= threshold).sum()), len(members), confidence),
        control=wilson(int((outsiders >= threshold).sum()), len(outsiders), confidence),
        baseline=false_positives,
        auc=_auc(members, outsiders, confidence),
    )


def _auc(members: np.ndarray, outsiders: np.ndarray, confidence: float) -> Rate:
    """Mann-Whitney's share, ties half, with the interval of Hanley and McNeil (Radiology 143, 1982)."""
    m, n = len(members), len(outsiders)
    ranks = rankdata(np.concatenate([members, outsiders]))
    auc = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    both_above, both_below = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (m - 1) * (both_above - auc**2) + (n - 1) * (both_below - auc**2)) / (m * n)
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(max(variance, 0.0))
    return Rate(auc, max(0.0, auc - half), min(1.0, auc + half))
