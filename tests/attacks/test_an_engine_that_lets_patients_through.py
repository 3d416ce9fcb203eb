"""A gradient engine with a fault would void every guarantee in silence; the comparison before each round finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from client.local_round import train_round
from privacy import fast_engine, fast_layers
from privacy.dp_sgd import Rows, clipped_sum, refuse_disagreement
from privacy.errors import MechanismRefused
from privacy.events import NonPrivate
from privacy.mechanism import l2_norm
from privacy.randomness import ReplayableNoise
from tests.client.test_local_round import DECLARED, STAGE, brain, people

Record = fast_engine._Record


def leave_one_out_of_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Record.squares

    def squares(self: fast_engine._Record) -> dict[str, Tensor]:
        found = dict(honest(self))
        least = min(found, key=lambda name: float(found[name].sum()) or float("inf"))
        return found | {least: torch.zeros_like(found[least])}

    monkeypatch.setattr(Record, "squares", squares)


def mix_up_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Record.add_to
    monkeypatch.setattr(Record, "add_to", lambda self, total, factors: honest(self, total, factors.flip(0)))


def clip_rows_in_place_of_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Record.squares
    monkeypatch.setattr(Record, "squares", lambda self: {k: v / max(self.sizes) for k, v in honest(self).items()})


def forget_cross_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    def squares(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        own = x.square().sum(-1) * grad.square().sum(-1)
        return {"weight": own.flatten(1).sum(1)}

    monkeypatch.setattr(fast_engine, "ghost_squares", squares)
    monkeypatch.setattr(fast_engine, "without_gradient", lambda module, *_: type(module) is nn.Linear)


def drop_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fast_layers._RULES[nn.Linear]

    def rule(module: nn.Module, names: Sequence[str], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        return {name: g * (name != "bias") for name, g in honest(module, names, x, grad).items()}

    monkeypatch.setitem(fast_layers._RULES, nn.Linear, rule)


FAULTS = [leave_one_out_of_the_norm, mix_up_patients, clip_rows_in_place_of_patients, forget_cross_terms, drop_a_bias]
Fault = Callable[[pytest.MonkeyPatch], None]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def loss(network: nn.Module, rows: Rows) -> Tensor:
    return (network(rows[0]) - 1).square().flatten(1).mean(1)


def patients(scale: float = 1.0) -> list[Rows]:
    draw = torch.Generator().manual_seed(1)
    return [(scale * torch.randn(2, 5, 8, generator=draw),) for _ in range(2)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_engine_is_found_by_comparing_two_patients(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    refuse_disagreement(model(), patients(), loss)
    fault(monkeypatch)
    with pytest.raises(MechanismRefused, match="engine=fast and engine=loop differ in"):
        refuse_disagreement(model(), patients(), loss)


def test_the_fault_would_have_broken_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    clip_rows_in_place_of_patients(monkeypatch)
    one = clipped_sum(model(), patients(50.0)[:1], loss, 0.5, "fast").total.tensors
    assert l2_norm(one) > 0.5 * 1.3


@pytest.mark.parametrize("fault", [leave_one_out_of_the_norm, mix_up_patients])
def test_a_round_never_starts_on_a_broken_engine(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    network = brain()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    fault(monkeypatch)
    with pytest.raises(MechanismRefused, match="run with engine=loop"):
        train_round(
            network, STAGE, people(2), DECLARED, NonPrivate("generator"), ReplayableNoise(0), torch.Generator().manual_seed(0)
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
