"""Ten ways to break a DP-SGD step that people have really broken one, each the real step but for one thing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from privacy.dp_sgd import RowLoss, Rows, trainable
from privacy.events import SampledGaussian
from privacy.mechanism import Bounded, Tensors, add_noise, l2_norm
from privacy.randomness import ReplayableNoise, SecretNoise
from privacy.steps import DpSgd, GaussianStep

Key = TypeVar("Key")


def gradients(model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss) -> list[dict[str, Tensor]]:
    names, tensors = list(trainable(model)), list(trainable(model).values())
    losses = [row_loss(model, rows).mean() for rows in patients]
    return [dict(zip(names, torch.autograd.grad(loss, tensors, materialize_grads=True), strict=True)) for loss in losses]


class Noisy(DpSgd):
    """The real noise on a sum that a subclass breaks."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        total = self.clipped_sum(model, patients, row_loss, l2_bound)
        return add_noise(Bounded(total, l2_bound), event.noise_multiplier, SecretNoise())


class Scaled(DpSgd, ABC):
    """The real step with noise of another size than was accounted."""

    @abstractmethod
    def factor(self, patients: Sequence[Rows]) -> float:
        """The noise that is added, over the noise that was accounted."""

    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        smaller = replace(event, noise_multiplier=event.noise_multiplier * self.factor(patients))
        return super().private_gradient(model, patients, row_loss, l2_bound, smaller)


class NoNoise(DpSgd):
    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        return self.clipped_sum(model, patients, row_loss, l2_bound)


class HalfTheNoise(Scaled):
    def factor(self, patients: Sequence[Rows]) -> float:
        return 0.5


class NoiseAFifthShort(Scaled):
    def factor(self, patients: Sequence[Rows]) -> float:
        return 0.8


class NoiseOverRootOfTheBatch(Scaled):
    def factor(self, patients: Sequence[Rows]) -> float:
        return 1 / math.sqrt(max(len(patients), 1))


class NoClipping(Noisy):
    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        return super().clipped_sum(model, patients, row_loss, 1e9)


class ClippedPerScan(Noisy):
    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        scans = [tuple(part[k : k + 1] for part in rows) for rows in patients for k in range(len(rows[0]))]
        return super().clipped_sum(model, scans, row_loss, l2_bound)


class OneParameterLeftOutOfTheNorm(Noisy):
    """The last one, as when a layer was registered after the list of parameters was made."""

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        total = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
        forgotten = list(total)[-1]
        for gradient in gradients(model, patients, row_loss):
            norm = l2_norm({name: tensor for name, tensor in gradient.items() if name != forgotten})
            if math.isfinite(norm):
                for name, tensor in gradient.items():
                    total[name] += tensor * min(1.0, l2_bound / max(norm, 1e-12))
        return total


class TwiceTheRate(DpSgd):
    def draw(self, patients: Sequence[Key], rate: float) -> list[Key]:
        return super().draw(patients, min(1.0, 2 * rate))


class TheSameNoiseAgain(Noisy):
    def private_gradient(
        self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float, event: SampledGaussian
    ) -> Tensors:
        total = self.clipped_sum(model, patients, row_loss, l2_bound)
        return add_noise(Bounded(total, l2_bound), event.noise_multiplier, ReplayableNoise(7))


class LossOfShapeBOne(Noisy):
    """Clipping factors (B,) times losses (B, 1) is (B, B): every loss is weighted with everybody's factor."""

    def clipped_sum(self, model: nn.Module, patients: Sequence[Rows], row_loss: RowLoss, l2_bound: float) -> Tensors:
        total = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
        everyone = [gradient for gradient in gradients(model, patients, row_loss) if math.isfinite(l2_norm(gradient))]
        factors = sum(min(1.0, l2_bound / max(l2_norm(gradient), 1e-12)) for gradient in everyone)
        for gradient in everyone:
            for name, tensor in gradient.items():
                total[name] += factors * tensor
        return total


BUGS: dict[str, type[GaussianStep]] = {
    "no noise": NoNoise,
    "half the noise": HalfTheNoise,
    "noise 20 % short": NoiseAFifthShort,
    "noise over the root of the batch": NoiseOverRootOfTheBatch,
    "no clipping": NoClipping,
    "clipping per scan": ClippedPerScan,
    "one parameter left out of the norm": OneParameterLeftOutOfTheNorm,
    "twice the accounted rate": TwiceTheRate,
    "the same noise again": TheSameNoiseAgain,
    "a loss of shape (B, 1)": LossOfShapeBOne,
}
