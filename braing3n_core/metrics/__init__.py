"""Numbers that say how good a synthetic volume is. Each refuses NaN by name, so a missing number never looks like a score.

images: two volumes against each other. distributions: two sets of people. anatomy: their organs. copies: training patients
come back. control: asked against measured. probes: what a linear map reads from features. transfer: what generated people teach
a probe. intervals: how sure, and what real against real scores.
"""

from braing3n_core.metrics.anatomy import Plausibility, cohens_d, plausibility, wasserstein
from braing3n_core.metrics.control import correlation, swap_effects
from braing3n_core.metrics.copies import copied_share, nearest_ratio
from braing3n_core.metrics.distributions import Manifold, frechet, kid, manifold
from braing3n_core.metrics.images import brain_mask_of, dice, mean_pairwise_ms_ssim, ms_ssim, psnr, signal_outside, ssim
from braing3n_core.metrics.intervals import Compared, against_real, bootstrap_interval, repeats_interval
from braing3n_core.metrics.probes import cross_validated, deal, one_hot, ridge
from braing3n_core.metrics.transfer import Taught, taught

__all__ = [
    "Compared",
    "Manifold",
    "Plausibility",
    "Taught",
    "against_real",
    "bootstrap_interval",
    "brain_mask_of",
    "cohens_d",
    "copied_share",
    "correlation",
    "cross_validated",
    "deal",
    "dice",
    "frechet",
    "kid",
    "manifold",
    "mean_pairwise_ms_ssim",
    "ms_ssim",
    "nearest_ratio",
    "one_hot",
    "plausibility",
    "psnr",
    "repeats_interval",
    "ridge",
    "signal_outside",
    "ssim",
    "swap_effects",
    "taught",
    "wasserstein",
]
