"""Secret noise has the distribution it is accounted with, and no two objects or processes ever share a stream."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from privacy.randomness import _BLOCK, ReplayableNoise, SecretNoise

DRAWS = 200_000
# Chance of a false alarm of each test below; there are fewer than ten.
LEVEL = 1e-6


def test_normal_draws_are_normal() -> None:
    draws = SecretNoise().normal(DRAWS).numpy()
    assert stats.kstest(draws, "norm").pvalue > LEVEL
    assert abs(draws.mean()) < 5 / np.sqrt(DRAWS)
    # The variance is what epsilon is computed from: chi-square with DRAWS degrees of freedom.
    assert abs((draws**2).sum() - DRAWS) < 5 * np.sqrt(2 * DRAWS)
    assert abs((np.abs(draws) > 3).sum() - 2 * stats.norm.sf(3) * DRAWS) < 6 * np.sqrt(2 * stats.norm.sf(3) * DRAWS)


def test_uniform_draws_fill_the_open_interval_evenly() -> None:
    draws = SecretNoise().uniform(DRAWS).numpy()
    assert stats.chisquare(np.histogram(draws, 256, (0, 1))[0]).pvalue > LEVEL
    assert draws.min() > 0
    assert draws.max() < 1
    # Low bits too: every draw is an odd multiple of 2^-53.
    odd = (draws * 2**53).astype(np.uint64)
    assert (odd % 2 == 1).all()
    assert stats.chisquare(np.bincount((odd >> np.uint64(1)).astype(np.int64) % 64, minlength=64)).pvalue > LEVEL


def test_neighbours_and_the_two_of_a_pair_are_independent() -> None:
    draws = SecretNoise().normal(DRAWS)
    for apart in (1, _BLOCK // 2, _BLOCK):
        a, b = draws[:-apart], draws[apart:]
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / np.sqrt(len(a))
        assert abs(float(torch.corrcoef(torch.stack([a.square(), b.square()]))[0, 1])) < 5 / np.sqrt(len(a))


@pytest.mark.parametrize("count", [0, 1, 2, 3, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK + 3])
def test_any_number_of_draws_can_be_had(count: int) -> None:
    for draws in (SecretNoise().normal(count), SecretNoise().uniform(count)):
        assert draws.shape == (count,)
        assert draws.dtype == torch.float64
        assert torch.isfinite(draws).all()
        assert len(set(draws.tolist())) == count, "a value came twice"


def test_no_two_objects_share_a_stream() -> None:
    seen: set[float] = set()
    for _ in range(50):
        seen |= set(SecretNoise().normal(100).tolist())
    assert len(seen) == 50 * 100


def test_a_forked_process_takes_a_key_of_its_own() -> None:
    noise = SecretNoise()
    noise.uniform(10)
    streams = [_uniform_of_a_fork(noise) for _ in range(3)] + [noise.uniform(20).numpy().tobytes()]
    words = [stream[i : i + 8] for stream in streams for i in range(0, 160, 8)]
    assert len(set(words)) == 80


def test_a_seed_changes_nothing() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)                                    # the generator that others draw noise from
        draws.append(SecretNoise().normal(10))
    assert not torch.equal(*draws)


@pytest.mark.parametrize("thief", [copy.copy, copy.deepcopy, pickle.dumps])
def test_secret_noise_cannot_be_copied_or_stored(thief: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied or stored"):
        thief(SecretNoise())  # type: ignore[operator]


def test_replayable_noise_says_so() -> None:
    assert ReplayableNoise(1).replayable
    assert not SecretNoise().replayable
    assert torch.equal(ReplayableNoise(1).normal(5), ReplayableNoise(1).normal(5))


def _uniform_of_a_fork(noise: SecretNoise) -> bytes:
    """20 draws made by a child that inherited `noise`, as bytes through a pipe."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, noise.uniform(20).numpy().tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return found
