"""How loud privacy is beside what a run learns, in closed form: what decides how many weights a consortium can afford.

The mean gradient of a whole run carries noise of norm C sqrt(weights) / (mu x patients) for a clipping bound C, whatever the
number of steps, as long as each step's noise is at least about twice the bound or everybody is in every step. mu is the one of
Gaussian differential privacy (Dong, Roth, Su, arXiv 1905.02383). `braing3n-sim law` holds it against the noise that rounds add.
"""

from __future__ import annotations

import math
from functools import lru_cache

from braing3n_core.budget import Mechanism
from privacy.errors import MechanismRefused
from privacy.lower_bounds import covering_mu

QUIET = 0.3                                                  # noise over clip that training still learns under


@lru_cache(maxsize=4096)
def mu(epsilon: float, delta: float) -> float:
    """The mu whose Gaussian curve passes through (epsilon, delta): 0.268 at (1, 1e-5), 0.719 at 3, 1.666 at 8."""
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise MechanismRefused(f"no noise gives epsilon={epsilon:g}, delta={delta:g}; write epsilon > 0 and 0 < delta < 1")
    return covering_mu([(epsilon, delta)])


def colluders(sites: int) -> int:
    """How many other sites a secure sum can count as colluding without asking for more than two honest ones: one, of three."""
    return 1 if sites > 2 else 0


def noise_over_clip(mechanism: Mechanism, weights: float, sites: int, patients: float, privacy: float) -> float:
    """Norm of the noise on the run's mean gradient over all sites' patients, in clipping bounds.

    `sites` equal ones of `patients` each, `privacy` the mu that is spent on these weights. A secure sum has one noise for all,
    times what colluders are not trusted to add; under `local` every site adds all of its own, sqrt(sites) more in the mean.
    """
    one_noise = math.sqrt(weights) / (privacy * patients * sites)
    match mechanism:
        case "local":
            return math.sqrt(sites) * one_noise
        case "secure-sum":
            return math.sqrt(sites / (sites - colluders(sites))) * one_noise
        case "non-private":
            return 0.0


def room(mechanism: Mechanism, sites: int, patients: float, privacy: float) -> float:
    """Most weights whose noise stays below QUIET."""
    return (QUIET / noise_over_clip(mechanism, 1, sites, patients, privacy)) ** 2
