"""Lazy modules become PyTorch's modules at their first call, and save and load before it and after it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug
from pullback.errors import ShapeError, StateDictError

nn = pb.nn

# name, arguments, shape of an input
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("LazyLinear", (4,), {}, (2, 3)),
    ("LazyLinear", (4, False), {}, (5,)),
    ("LazyConv1d", (4, 3), dict(groups=2), (2, 6, 5)),
    ("LazyConv2d", (4, 3), dict(padding="same", bias=False), (3, 5, 5)),
    ("LazyConv3d", (2, 2), dict(stride=2), (1, 1, 4, 4, 4)),
    ("LazyConvTranspose1d", (4, 3), dict(groups=2), (2, 6, 5)),
    ("LazyConvTranspose2d", (4, 3), dict(stride=2, output_padding=1), (3, 5, 5)),
    ("LazyConvTranspose3d", (2, 2), dict(bias=False), (1, 1, 3, 3, 3)),
    ("LazyBatchNorm1d", (), {}, (4, 3)),
    ("LazyBatchNorm2d", (1e-3, None), dict(affine=False), (4, 3, 2, 2)),
    ("LazyBatchNorm3d", (), dict(track_running_stats=False, bias=False), (4, 3, 2, 2, 2)),
    ("LazyInstanceNorm1d", (), {}, (4, 3, 6)),
    ("LazyInstanceNorm2d", (), dict(affine=False), (4, 3, 2, 2)),
    ("LazyInstanceNorm3d", (), dict(track_running_stats=False), (4, 3, 2, 2, 2)),
]
IDS = [f"{name}{number}" for number, (name, *_) in enumerate(LAYERS)]


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=IDS)
def test_a_lazy_layer_becomes_pytorchs(
    name: str, args: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    theirs = getattr(torch.nn, name)(*args, **options)
    ours = getattr(nn, name)(*args, **options)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.has_uninitialized_params() == theirs.has_uninitialized_params()
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with debug.override(backend="reference"):
        ours(pb.tensor(values)), theirs(torch.tensor(values))
        assert type(ours) is getattr(nn, name.removeprefix("Lazy"))
        assert repr(ours) == repr(theirs)
        fresh = copy.deepcopy(ours)
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        found, wanted = ours(pb.tensor(values)), theirs(torch.tensor(values))
        np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    # it starts as the layer does: of the same sizes, spread as widely
    for mine, other in zip(fresh.parameters(), theirs.parameters(), strict=True):
        assert mine.shape == tuple(other.shape) and mine.requires_grad
    assert greatest(fresh) == pytest.approx(greatest(theirs), rel=0.3)


def greatest(layer: Any) -> list[float]:
    """Of each parameter the greatest magnitude that it starts with, in a number of starts: a bias has few elements."""
    starts = []
    for _ in range(12):
        layer.reset_parameters()
        starts.append([parameter.abs().max().item() for parameter in layer.parameters()])
    return [max(column) for column in zip(*starts, strict=True)]


def test_state_dictionaries_load_before_and_after_the_first_call() -> None:
    there, waiting = nn.LazyLinear(2), nn.LazyLinear(2)
    x = pb.ones(1, 3)
    assert waiting.load_state_dict(there.state_dict()) == ([], []) and waiting.has_uninitialized_params()
    wanted = there(x)
    with pytest.raises(StateDictError, match="weight has no shape and no value yet in the dictionary"):
        there.load_state_dict(waiting.state_dict())
    with pytest.raises(StateDictError, match="missing: bias"):
        waiting.load_state_dict({"weight": there.weight})
    assert repr(waiting.weight) == "<UninitializedParameter>"  # as it was
    waiting.load_state_dict(there.state_dict())
    assert type(waiting.weight) is nn.Parameter and type(waiting) is nn.LazyLinear
    assert waiting(x).tolist() == wanted.tolist() and repr(waiting) == repr(there)
    assigned = nn.LazyLinear(2)
    assigned.load_state_dict(there.state_dict(), assign=True)
    assert assigned(x).tolist() == wanted.tolist()
    normal = nn.LazyBatchNorm1d()
    normal.load_state_dict(nn.BatchNorm1d(3).state_dict())
    assert normal(pb.ones(2, 3)).shape == (2, 3) and normal.num_features == 3


def test_a_network_is_copied_converted_and_trained() -> None:
    network = nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(1)).double()
    twin = copy.deepcopy(network)
    x = pb.ones(2, 3, 4, 4, dtype=pb.float64)
    with pytest.raises(ShapeError, match="call the module once"):
        pb.optim.SGD(network.parameters(), lr=0.1)
    network(x)
    assert {p.dtype for p in network.parameters()} == {pb.float64} and len(list(network.parameters())) == 6
    assert twin[0].has_uninitialized_params() and twin[1].running_mean.dtype is pb.float64
    optimizer = pb.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (network(x) - 1).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_a_compiled_step_makes_the_parameters_while_it_is_recorded() -> None:
    layer = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
    run = pb.compile(lambda x: layer(x))
    first = run(pb.ones(4, 3)).tolist()
    assert isinstance(layer[0], nn.Linear) and not isinstance(layer[0], nn.LazyLinear)
    assert layer[0].weight.abs().sum().item() > 0 and layer[1].num_batches_tracked.item() == 1
    layer[1].reset_running_stats()
    assert run(pb.ones(4, 3)).tolist() == first
    layer.eval()
    np.testing.assert_allclose(run(pb.ones(4, 3)).tolist(), layer(pb.ones(4, 3)).tolist(), rtol=1e-6)


class Scale(nn.modules.lazy.LazyModuleMixin, nn.Module):
    """A lazy module of the user's own, which stays of its class."""

    def __init__(self, forget: bool = False) -> None:
        super().__init__()
        self.weight, self.forget = nn.UninitializedParameter(), forget
        self.offset = nn.UninitializedBuffer(persistent=False)

    def initialize_parameters(self, x: pb.Tensor, scale: float) -> None:
        self.weight.materialize(x.shape)
        nn.init.constant_(self.weight, scale)
        if not self.forget:
            self.offset.materialize((1,))

    def forward(self, x: pb.Tensor, scale: float) -> pb.Tensor:
        return x * self.weight + self.offset


def test_a_lazy_module_of_ones_own() -> None:
    module = Scale()
    assert list(module.state_dict()) == ["weight"]
    assert module(pb.ones(2), scale=3.0).tolist() == module(pb.ones(2), scale=5.0).tolist() == [3.0, 3.0]
    assert type(module) is Scale and type(module.offset) is nn.Buffer and not module.has_uninitialized_params()
    with pytest.raises(RuntimeError, match="has left parameters or buffers without a shape"):
        Scale(forget=True)(pb.ones(2), scale=1.0)


def test_buffers_are_registered_by_assignment() -> None:
    module = nn.Module()
    module.kept, module.passing = nn.Buffer(pb.ones(1)), nn.Buffer(pb.ones(2), persistent=False)
    assert [name for name, _ in module.named_buffers()] == ["kept", "passing"]
    assert list(module.state_dict()) == ["kept"]
    again = copy.deepcopy(module)
    again.other = again.passing
    assert list(again.state_dict()) == ["kept"] and nn.Buffer().shape == (0,) and nn.Parameter().shape == (0,)


def test_errors_say_what_is_wrong() -> None:
    layer = nn.LazyConv2d(4, 3, groups=2)
    for use in (lambda: layer.weight + 1, lambda: layer.weight.shape, lambda: layer.weight.data, layer.bias.numel):
        with pytest.raises(ShapeError, match="this UninitializedParameter has no shape and no value yet"):
            use()
    with pytest.raises(ShapeError, match=r"must have 3 axes, or 4 with a batch, got \[2, 3\]"):
        layer(pb.ones(2, 3))
    with pytest.raises(ValueError, match="in_channels=3 must be divisible by groups=2"):
        layer(pb.ones(1, 3, 5, 5))
    with pytest.raises(ValueError, match="out_channels=3 must be divisible by groups=2"):
        nn.LazyConvTranspose2d(3, 3, groups=2)
    with pytest.raises(ShapeError, match=r"must have 4 axes, got \[2, 3\]"):
        nn.LazyBatchNorm2d()(pb.ones(2, 3))
    with pytest.raises(NotImplementedError, match="must define initialize_parameters"):
        nn.modules.lazy.LazyModuleMixin()(1)
