"""The fast engine tells patients apart in every layer it knows, and refuses what it does not know by name."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from privacy.dp_sgd import Rows, clipped_sum, refuse_disagreement
from privacy.errors import MechanismRefused
from privacy.fast_engine import _Record, fast
from privacy.fast_layers import without_gradient
from privacy.mechanism import l2_norm


class Wave(nn.Module):
    """A leaf of one's own: it states the gradient of its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.height

    def patient_gradients(self, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
        return {"height": (x * grad).sum(tuple(range(1, x.dim() - 1)))}


# layer -> (its maker, the shape of one row of its input, whether Opacus' hooks follow it)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "linear, no tokens": (lambda: nn.Linear(4, 3), (4,), True),
    "linear, tokens": (lambda: nn.Linear(4, 3), (5, 4), True),
    "linear, two axes of tokens": (lambda: nn.Linear(4, 3, bias=False), (2, 3, 4), True),
    "linear, wide": (lambda: nn.Linear(64, 64), (2, 64), True),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9), True),
    "conv2d, same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (4, 5, 4), True),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, padding=1), (2, 4, 3, 5), True),
    "conv3d, 1x1": (lambda: nn.Conv3d(2, 4, 1), (2, 4, 3, 5), True),
    "conv3d, groups, stride, dilation": (
        lambda: nn.Conv3d(4, 6, 3, stride=(1, 2, 1), padding=(2, 1, 0), dilation=(2, 1, 1), groups=2, bias=False), (4, 5, 4, 6),
        True,
    ),
    "conv3d, valid": (lambda: nn.Conv3d(2, 3, 2, padding="valid"), (2, 3, 4, 3), True),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (2, 3, 2, 2), True),
    "transposed 3d, groups and room": (
        lambda: nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0, 1), groups=2), (4, 2, 3, 2), True,
    ),
    "layer norm": (lambda: nn.LayerNorm(4), (5, 4), True),
    "layer norm, two axes": (lambda: nn.LayerNorm((5, 4)), (3, 5, 4), True),
    "layer norm, no bias": (lambda: nn.LayerNorm(4, bias=False), (5, 4), False),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 2, 5), True),
    "group norm, no voxels": (lambda: nn.GroupNorm(2, 4), (4,), False),
    "leaf of one's own": (Wave, (5, 4), True),
}  # fmt: skip


def loss(model: nn.Module, rows: Rows) -> Tensor:
    return (model(rows[0]) - 0.3).square().flatten(1).mean(1)


def people(sizes: list[int], shape: tuple[int, ...], seed: int = 0) -> list[Rows]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(k, *shape, generator=draw),) for k in sizes]


def agree(model: nn.Module, patients: list[Rows], engine: str = "fast", bound: float = 0.05, row_loss: Callable = loss) -> None:
    truth = clipped_sum(model, patients, row_loss, bound, "loop")
    found = clipped_sum(model, patients, row_loss, bound, engine)
    assert torch.allclose(found.norms, truth.norms, rtol=1e-5, atol=1e-9, equal_nan=True)
    apart = l2_norm({name: found.total.tensors[name] - truth.total.tensors[name] for name in truth.total.tensors})
    assert apart <= 1e-5 * max(l2_norm(truth.total.tensors), 1e-6)


@pytest.mark.parametrize("name", LAYERS)
@settings(deadline=None, max_examples=6)
@given(
    sizes=st.lists(st.integers(1, 3), max_size=4), even=st.booleans(), bound=st.floats(1e-3, 1e2), seed=st.integers(0, 99),
    frozen=st.booleans(),
)  # fmt: skip
def test_engines_agree_on_every_layer(name: str, sizes: list[int], even: bool, bound: float, seed: int, frozen: bool) -> None:
    make, shape, witnessed = LAYERS[name]
    torch.manual_seed(seed)
    model = nn.Sequential(make(), nn.Tanh())
    if frozen and len(list(model.parameters())) == 2:
        model[0].weight.requires_grad_(False)                # what is left is the bias alone
    patients = people([sizes[0]] * len(sizes) if even and sizes else sizes, shape, seed)
    agree(model, patients, "fast", bound)
    if witnessed:
        agree(model, patients, "opacus", bound)


@settings(deadline=None, max_examples=10)
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), padding=st.sampled_from([None, 2]), seed=st.integers(0, 99))
def test_engines_agree_on_an_embedding(sizes: list[int], padding: int | None, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    patients = [(torch.randint(5, (k, 3), generator=draw),) for k in sizes]
    agree(nn.Sequential(nn.Embedding(5, 4, padding_idx=padding), nn.Linear(4, 2)), patients)


class Net(nn.Module):
    """Convolution, tokens, a leaf used twice and one that is not used."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.LayerNorm(4)
        self.twice = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.leave = nn.Linear(4, 2)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).flatten(2).transpose(1, 2))
        inner = checkpoint(self._inner, x, use_reentrant=False) if self.checkpointed else self._inner(x)
        return self.leave(inner.mean(1))

    def _inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.twice(torch.relu_(self.twice(x))))


SHAPE = (1, 3, 2, 4)


def net(checkpointed: bool = False) -> Net:
    torch.manual_seed(1)
    return Net(checkpointed)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_layer_used_twice_is_added_up_before_its_norm(checkpointed: bool) -> None:
    agree(net(checkpointed), people([2, 2, 1], SHAPE))


def test_weights_shared_by_two_layers_are_one_weight() -> None:
    # One token for each row: both uses would be ghosts, whose norms know nothing of the cross terms between them.
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6, bias=False))
    model[2].weight = model[0].weight
    agree(model, people([1, 1, 2], (6,)))


def test_an_unused_layer_gets_zeros() -> None:
    result = clipped_sum(net(), people([1, 2], SHAPE), loss, 1.0, "fast").total.tensors
    assert result["unused.weight"].abs().max() == 0
    assert result["leave.weight"].abs().max() > 0


@pytest.mark.parametrize("trained", ["conv.", "twice.", "norm.weight", "bias"])
def test_frozen_tensors_enter_neither_norm_nor_sum(trained: str) -> None:
    model = net()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
    agree(model, people([1, 2], SHAPE))


def test_no_pass_is_held_while_the_next_is_worked_on() -> None:
    model, alive = net(), []

    def counting(model: nn.Module, rows: Rows) -> Tensor:
        alive.append(sum(type(one) is _Record for one in gc.get_objects()))
        return loss(model, rows)

    clipped_sum(model, people([16] * 5, SHAPE), counting, 0.05, "fast")
    assert alive == [1, 1, 1]


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 5, 100])
def test_how_patients_are_cut_into_passes_changes_nothing(rows_at_once: int) -> None:
    model, patients = net(), people([1, 2, 2, 4, 1], SHAPE)
    truth = clipped_sum(model, patients, loss, 1e9, "loop")
    total = {name: torch.zeros_like(p).detach() for name, p in model.named_parameters()}
    passes = 0
    for part in fast(model, patients, loss, rows_at_once):
        part.add_to(total, torch.ones(len(next(iter(part.squares().values()))), dtype=torch.float64))
        passes += 1
    assert passes == {1: 5, 2: 5, 3: 4, 5: 2, 100: 1}[rows_at_once]
    apart = l2_norm({name: total[name] - truth.total.tensors[name] for name in total})
    assert apart <= 1e-5 * l2_norm(truth.total.tensors)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_a_broken_patient_contributes_nothing_and_spoils_no_pass(poison: float) -> None:
    model, healthy = net(), people([2, 1, 1], SHAPE)
    agree(model, [healthy[0], (torch.full((1, *SHAPE), poison),), *healthy[1:]])
    with_broken = clipped_sum(model, [(torch.full((1, *SHAPE), poison),)], loss, 1.0, "fast").total.tensors
    assert l2_norm(with_broken) <= 1.0 * (1 + 1e-6)


@pytest.mark.parametrize("sizes", [[2, 2], [1, 3, 2]])
def test_under_bf16_what_is_summed_is_what_was_clipped(sizes: list[int]) -> None:
    def halved(model: nn.Module, rows: Rows) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model, (50 * rows[0],)).float()

    model = net()
    for patient in people(sizes, SHAPE):
        alone = clipped_sum(model, [patient], halved, 0.5, "fast")
        assert alone.norms.min() > 0.5, "clipping must bind"
        assert abs(l2_norm(alone.total.tensors) / 0.5 - 1) < 1e-5
    whole, truth = (clipped_sum(model, people(sizes, SHAPE), halved, 0.5, e).total.tensors for e in ("fast", "loop"))
    assert l2_norm({name: whole[name] - truth[name] for name in whole}) <= 0.05 * l2_norm(truth)


def test_both_ways_to_a_norm_are_taken() -> None:
    layer = nn.Linear(64, 64)
    assert without_gradient(layer, torch.zeros(2, 64), 2, 1)
    assert not without_gradient(layer, torch.zeros(2, 500, 64), 2, 1)


def test_a_ghost_is_not_fooled_by_tokens_that_cancel() -> None:
    # Inputs that are nearly alike, output gradients that sum to nearly nothing: the terms are 10^6 times their sum.
    draw = torch.Generator().manual_seed(3)
    x = 300 + torch.randn(1, 4, 64, generator=draw)
    g = torch.randn(1, 4, 64, generator=draw)
    patient = (x, g - g.mean(1, keepdim=True))
    layer = nn.Linear(64, 64, bias=False)
    assert without_gradient(layer, x, 1, 1)

    def linear_loss(model: nn.Module, rows: Rows) -> Tensor:
        return (model(rows[0]) * rows[1]).sum((1, 2))

    truth, found = (float(clipped_sum(layer, [patient], linear_loss, 1.0, e).norms) for e in ("loop", "fast"))
    assert abs(found / truth - 1) < 1e-4


def test_the_model_is_left_as_it_was() -> None:
    model = net()
    before = {name: p.clone() for name, p in model.named_parameters()}
    clipped_sum(model, people([1], SHAPE), loss, 1.0, "fast")
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(isinstance(p, nn.Parameter) and torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


class Raw(nn.Module):
    """A parameter on a container."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.place = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.place


class Borrowed(nn.Module):
    """Uses a layer's weight behind the layer's back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.inner(x), self.inner.weight)


class Folded(nn.Module):
    """Rows are no longer the leading axis where the layer sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(0, 1)).view(x.shape)


class Learning(nn.Module):
    """A buffer that remembers patients."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().mean((0, 1))
        return self.inner(x)


class Hidden(nn.Linear):
    """A subclass may do anything in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        (nn.Conv3d(1, 2, 3, padding=1, padding_mode="replicate"), SHAPE, "padding_mode='replicate' makes border voxels count"),
        (nn.Conv3d(1, 2, 3, padding=1, padding_mode="circular"), SHAPE, "padding_mode='circular'"),
        (nn.Conv3d(1, 2, 2, padding="same"), SHAPE, "even kernel"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(5)), (5, 4), "normalises with all patients"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(5, track_running_stats=False).eval()), (5, 4), "use GroupNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (5, 4), "draws random numbers in forward"),
        (nn.InstanceNorm3d(1, affine=True), SHAPE, "InstanceNorm3d; give it a method patient_gradients"),
        (Raw(), (5, 4), "holds parameters beside its children"),
        (Borrowed(), (5, 4), "inner.weight is used outside its own layer"),
        (Folded(), (5, 4), "does not begin with the batch's 3 rows"),
        (Learning(), (5, 4), "changed the buffer seen"),
        (Hidden(4, 4), (5, 4), "Hidden; give it a method"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (5, 4), "holds parameters beside its children"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(model: nn.Module, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(MechanismRefused, match=said.replace("(", r"\(")):
        clipped_sum(model, people([1, 2], shape), loss, 1.0, "fast")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own, on import
def test_a_compiled_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].compile()
    with pytest.raises(MechanismRefused, match="0 is compiled"):
        clipped_sum(model, people([1], (4,)), loss, 1.0, "fast")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own, on import
@pytest.mark.parametrize("compiled", ["loss", "loss used before", "forward of a container"])
def test_what_is_compiled_around_layers_is_exact(compiled: str) -> None:
    model, row_loss = net(), loss
    if compiled == "forward of a container":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        row_loss = torch.compile(loss, backend="eager")
    if compiled == "loss used before":                       # a graph exists that knows nothing of taps
        row_loss(model, (torch.cat([rows[0] for rows in people([2, 1], SHAPE)]),)).sum().backward()
        model.zero_grad()
    agree(model, people([2, 1], SHAPE), row_loss=row_loss)
    agree(model, people([1, 1, 1], SHAPE), row_loss=row_loss)


def test_a_replaced_forward_is_refused() -> None:
    model = nn.Linear(4, 4)
    model.forward = lambda x: x @ model.weight.T * 2
    with pytest.raises(MechanismRefused, match="its forward was replaced"):
        clipped_sum(model, people([1], (4,)), loss, 1.0, "fast")


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_embeddings_that_mix_patients_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(MechanismRefused, match="engine=loop"):
        clipped_sum(nn.Embedding(5, 4, **options), [(torch.zeros(1, 3, dtype=torch.long),)], loss, 1.0, "fast")


@pytest.mark.parametrize("engine", ["loop", "fast", "opacus"])
def test_a_loss_that_is_not_one_number_a_row_is_refused(engine: str) -> None:
    with pytest.raises(MechanismRefused, match="one number for each row"):
        clipped_sum(nn.Linear(4, 3), people([1, 2], (4,)), lambda model, rows: loss(model, rows)[:, None], 1.0, engine)


def test_a_buffer_that_learns_is_refused_by_the_loop_too() -> None:
    with pytest.raises(MechanismRefused, match="changed the buffer seen"):
        clipped_sum(Learning(), people([1], (5, 4)), loss, 1.0, "loop")


def test_equal_engines_pass_the_comparison_even_beside_a_broken_patient() -> None:
    patients = people([2, 2], SHAPE)
    refuse_disagreement(net(), patients, loss)
    refuse_disagreement(net(), [patients[0], (torch.full((2, *SHAPE), math.nan),)], loss)
    refuse_disagreement(net(), [], loss)
