"""A metric that flatters, or that takes NaN for a number, would be worse than none."""

from __future__ import annotations

import math

import pytest
import torch

from braing3n_core import metrics
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused
from braing3n_core.models.presets import PRESETS

SIDES = (28, 32, 30)                                         # unequal on purpose


def noise(seed: int, sides: tuple[int, int, int] = SIDES) -> torch.Tensor:
    return torch.rand(1, *sides, generator=torch.Generator().manual_seed(seed))


def everything() -> torch.Tensor:
    return torch.ones(SIDES, dtype=torch.bool)


def test_psnr_is_its_formula() -> None:
    a = noise(0)
    assert metrics.psnr(a, a + 0.1, everything()) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr(a, a, everything()) == math.inf


def test_a_black_background_does_not_flatter_psnr() -> None:
    a = torch.zeros(1, *SIDES)
    a[:, :14] = 0.5
    mask = a[0] > 0
    wider = metrics.psnr(a, a * 1.2, everything())
    assert wider - metrics.psnr(a, a * 1.2, mask) == pytest.approx(10 * math.log10(2), abs=1e-6)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_no_metric_takes_a_poisoned_volume(poison: float) -> None:
    good, bad = noise(1), noise(1)
    bad[0, 3, 3, 3] = poison
    calls = (
        lambda: metrics.psnr(good, bad, everything()),
        lambda: metrics.ms_ssim(bad, good),
        lambda: metrics.ssim(good, bad),
        lambda: metrics.mean_pairwise_ms_ssim([good, bad], 1, 0),
        lambda: metrics.brain_mask_of(bad),
        lambda: metrics.signal_outside(bad, everything()),
        lambda: metrics.correlation([1.0, 2.0, poison], [1.0, 2.0, 3.0]),
        lambda: metrics.kid([[1.0], [poison]], [[1.0], [2.0]]),
        lambda: metrics.bootstrap_interval([1.0, poison], 0),
    )
    for call in calls:
        with pytest.raises(DataRefused, match="finite"):
            call()


def test_what_has_no_meaning_is_refused_not_scored() -> None:
    nothing = ~everything()
    for call in (
        lambda: metrics.psnr(noise(0), noise(1), nothing),
        lambda: metrics.psnr(noise(0), noise(1, (4, 4, 4)), everything()),
        lambda: metrics.dice(nothing, nothing),
        lambda: metrics.dice(everything().float(), everything()),
        lambda: metrics.correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        lambda: metrics.correlation([1.0, 2.0], [1.0, 2.0]),
        lambda: metrics.kid([[1.0]], [[1.0], [2.0]]),
        lambda: metrics.mean_pairwise_ms_ssim([noise(0)], 4, 0),
        lambda: metrics.ms_ssim(noise(0, (8, 8, 8)), noise(1, (8, 8, 8))),
        lambda: metrics.bootstrap_interval([1.0, 2.0], 0, level=math.nan),
        lambda: metrics.psnr(torch.rand(2, *SIDES), torch.rand(2, *SIDES), everything()),
    ):
        with pytest.raises(DataRefused):
            call()


def test_ms_ssim_falls_as_volumes_differ_more() -> None:
    smooth = torch.nn.functional.avg_pool3d(noise(2)[None], 5, 1, 2)[0]
    scores = [metrics.ms_ssim(smooth, smooth + level * (noise(3) - 0.5)) for level in (0.0, 0.1, 0.4)]
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] > scores[1] > scores[2] >= 0


def test_a_generator_that_repeats_itself_is_seen() -> None:
    varied = torch.stack([noise(seed) for seed in range(5)])
    assert metrics.mean_pairwise_ms_ssim(varied[:1].repeat(5, 1, 1, 1, 1), 10, 0) == pytest.approx(1.0, abs=1e-5)
    assert metrics.mean_pairwise_ms_ssim(varied, 10, 0) < 0.5
    assert metrics.mean_pairwise_ms_ssim(varied, 4, 7) == metrics.mean_pairwise_ms_ssim(varied, 4, 7)
    assert metrics.mean_pairwise_ms_ssim(varied, 99, 1) == pytest.approx(metrics.mean_pairwise_ms_ssim(varied, 10, 2), abs=1e-6)


def test_dice_is_its_formula() -> None:
    a, b = ~everything(), ~everything()
    a[:4], b[2:6] = True, True
    assert metrics.dice(a, b) == pytest.approx(0.5)
    assert metrics.dice(a, a) == 1.0


def test_brain_mask_leaves_neither_holes_nor_dust() -> None:
    volume = torch.zeros(1, *SIDES)
    volume[0, 5:20, 5:20, 5:20] = 0.6
    volume[0, 10:12, 10:12, 10:12] = 0.0                     # a hole
    volume[0, 24, 24, 24] = 0.9                              # dust
    mask = metrics.brain_mask_of(volume)
    assert int(mask.sum()) == 15**3
    assert not metrics.brain_mask_of(torch.zeros(1, *SIDES)).any()


def test_brain_mask_finds_the_templates_brain() -> None:
    public = template(PRESETS["tiny"])
    assert metrics.dice(metrics.brain_mask_of(public.t1), public.mask) > 0.97
    assert metrics.signal_outside(public.t1, public.mask) == 0.0


def test_signal_outside_is_a_fraction() -> None:
    volume, mask = torch.ones(1, *SIDES), everything()
    mask[:14] = False
    assert metrics.signal_outside(volume, mask) == pytest.approx(0.5)
    assert metrics.signal_outside(volume * 0, mask) == 0.0


def test_ssim_is_monais_and_falls_with_noise() -> None:
    a = noise(2)
    scores = [metrics.ssim(a, a + level * (noise(3) - 0.5)) for level in (0.0, 0.1, 0.4)]
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] > scores[1] > scores[2] > -1
    with pytest.raises(DataRefused, match="7 voxels"):
        metrics.ssim(noise(0, (6, 8, 8)), noise(1, (6, 8, 8)))
