"""How far one set of people is from another, in a feature space that the caller names. n and m rows, f features, no units.

None of these numbers means anything alone: say which features, how many rows, and what two halves of the real set score
(`against_real`). With few rows take `kid`; the Fréchet distance is then mostly bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from braing3n_core.errors import DataRefused
from braing3n_core.metrics.checks import FloatArray, two_sets


def kid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Kernel inception distance: unbiased squared MMD between two feature sets (n, f) and (m, f), no unit. 0: same source.

    k(x, y) = (x.y / f + 1)^3; mean k(a, a') over a != a' + mean k(b, b') over b != b' - 2 mean k(a, b). Unbiased, so it may be
    slightly negative and may be used with few volumes, where a Fréchet distance is mostly bias. Say which features were
    used. Source: Bińkowski et al., ICLR 2018.
    """
    a, b = two_sets(features_a, features_b, "kid")

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)

    return _off_diagonal_mean(kernel(a, a)) + _off_diagonal_mean(kernel(b, b)) - 2 * float(kernel(a, b).mean())


def frechet(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to the sets, in squared feature units. 0: same mean and covariance.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)). With centred rows X, Y the last trace is the sum of the singular values
    of X Y^T / sqrt((n-1)(m-1)), so no matrix root can fail. Biased upwards by finite sets: two halves of one set are far
    from zero below some thousand rows. Sources: Dowson and Landau 1982; Heusel et al., NeurIPS 2017.
    """
    a, b = two_sets(features_a, features_b, "frechet")
    x, y = (a - a.mean(0)) / np.sqrt(len(a) - 1), (b - b.mean(0)) / np.sqrt(len(b) - 1)
    shared = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    apart = float(np.square(a.mean(0) - b.mean(0)).sum())
    return max(0.0, apart + float(np.square(x).sum() + np.square(y).sum()) - 2 * shared)


@dataclass(frozen=True)
class Manifold:
    """Fidelity (precision, density) and diversity (recall, coverage) of a generated set. Real against real is not 1."""

    precision: float                                         # generated rows within reach of a real one, 0 to 1
    recall: float                                            # real rows within reach of a generated one, 0 to 1
    density: float                                           # real rows that reach a generated one, over k; may pass 1
    coverage: float                                          # real rows whose own reach holds a generated one, 0 to 1


def manifold(real: ArrayLike, made: ArrayLike, neighbours: int = 5) -> Manifold:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    A row reaches as far as its k-th nearest neighbour in its own set. precision = share of made within any real's reach;
    recall = share of real within any made's reach; density = reals that reach a made row, averaged, over k; coverage = share
    of reals with a made row within their reach. Coverage is the one to trust with outliers among the generated.
    """
    x, y = two_sets(real, made, "manifold", neighbours + 1)
    if not neighbours >= 1:
        raise DataRefused(f"manifold needs at least 1 neighbour, got {neighbours}; 5 is usual")
    between = cdist(x, y)                                                                      # (n, m)
    reach_x, reach_y = _reach(x, neighbours), _reach(y, neighbours)
    within = between <= reach_x[:, None]
    return Manifold(
        precision=float(within.any(0).mean()),
        recall=float((between <= reach_y[None]).any(1).mean()),
        density=float(within.sum(0).mean() / neighbours),
        coverage=float((between.min(1) <= reach_x).mean()),
    )


def _reach(rows: FloatArray, neighbours: int) -> FloatArray:
    """(n,) distance to the k-th nearest other row."""
    return np.asarray(np.partition(cdist(rows, rows), neighbours, axis=1)[:, neighbours])     # its own 0 is the first


def _off_diagonal_mean(gram: FloatArray) -> float:
    n = len(gram)
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1)))
