"""Kinds of networks, of random depth and width, into which a fault is put at a random place."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pullback as pb

from .fault_kinds import Fault

nn, F = pb.nn, pb.nn.functional


class Stage(nn.Module):
    """Two layers, and the fault behind them where there is one."""

    def __init__(self, inner: Any, fault: Fault | None):
        super().__init__()
        self.inner, self.fault = inner, fault

    def forward(self, h: Any, gap: Any) -> Any:
        h = self.inner(h)  # first
        return h if self.fault is None else self.fault(h, gap)


class Network(nn.Module):
    """Stages one after the other. `shape` is that of the input, which the operation `first` is the first to read, at
    the line of `reader` that is marked so.
    """

    def __init__(self, stages: list[Any], shape: tuple[int, ...], first: str, reader: Any = Stage):
        super().__init__()
        self.reader = reader
        self.stages, self.shape, self.first = nn.ModuleList(stages), shape, first
        self.head = nn.Linear(math.prod(shape[1:]), 1)

    def forward(self, x: Any, gap: Any) -> Any:
        h = x
        for stage in self.stages:
            h = stage(h, gap)
        return self.head(h.flatten(1).float()).square().mean()


def _staged(make: Callable[[int], Any], fault: Fault | None, chance: random.Random) -> list[Any]:
    """A random number of stages, the fault in one of them."""
    depth = chance.randint(1, 3)
    place = chance.randrange(depth)
    return [Stage(make(number), fault if number == place else None) for number in range(depth)]


def mlp(fault: Fault | None, chance: random.Random) -> Network:
    """Fully connected layers with activations and dropout."""
    width = chance.choice([4, 8, 12])
    acts = [nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.SiLU]
    make = lambda n: nn.Sequential(nn.Linear(width, width), chance.choice(acts)(), nn.Dropout(0.1))  # noqa: E731
    return Network(_staged(make, fault, chance), (3, width), "linear")


def convolutional(fault: Fault | None, chance: random.Random) -> Network:
    """Convolutions with batch normalization and pooling."""
    channels = chance.choice([2, 4])

    def make(number: int) -> Any:
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    return Network(_staged(make, fault, chance), (2, channels, 6, 6), "conv2d")


def normalized(fault: Fault | None, chance: random.Random) -> Network:
    """Layer, group and RMS normalization between layers."""

    def make(number: int) -> Any:
        return nn.Sequential(nn.Linear(8, 8), chance.choice([nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.RMSNorm(8)]))

    return Network(_staged(make, fault, chance), (3, 8), "linear")


class _Recurrent(nn.Module):
    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]  # first


def recurrent(fault: Fault | None, chance: random.Random) -> Network:
    """LSTM, GRU or plain recurrent layers."""
    kind = chance.choice([nn.LSTM, nn.GRU, nn.RNN])
    stages = _staged(lambda n: _Recurrent(kind(6, 6, batch_first=True)), fault, chance)
    return Network(stages, (2, 5, 6), "linear", _Recurrent)


class _Block(nn.Module):
    """Attention and a feed-forward part, each with a residual; causal."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Any) -> Any:
        normal = self.norm1(h)  # first
        hidden = pb.ones(h.shape[1], h.shape[1], dtype=pb.bool).triu(1)
        h = h + self.attention(normal, normal, normal, attn_mask=hidden, need_weights=False)[0]
        return h + self.down(F.gelu(self.up(self.norm2(h))))


def transformer(fault: Fault | None, chance: random.Random) -> Network:
    """Blocks of masked attention."""
    width = chance.choice([4, 8])
    return Network(_staged(lambda n: _Block(width), fault, chance), (2, 5, width), "layer_norm", _Block)


class _Scaled(pb.autograd.Function):
    """A right rule of one's own."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        return x * 3

    @staticmethod
    def backward(context: Any, cotangent: Any) -> Any:
        return cotangent * 3


class _OwnRule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, h: Any) -> Any:
        return _Scaled.apply(self.linear(h)).tanh()  # first


def own_rules(fault: Fault | None, chance: random.Random) -> Network:
    """Functions with backward passes of their own."""
    return Network(_staged(lambda n: _OwnRule(), fault, chance), (3, 6), "linear", _OwnRule)


class Mixed(Network):
    """Products in bfloat16."""

    def forward(self, x: Any, gap: Any) -> Any:
        with pb.autocast("cpu", dtype=pb.bfloat16):
            return super().forward(x, gap)


def mixed_precision(fault: Fault | None, chance: random.Random) -> Network:
    """Layers under autocast."""
    make = lambda n: nn.Sequential(nn.Linear(8, 8), nn.ReLU())  # noqa: E731
    return Mixed(_staged(make, fault, chance), (3, 8), "linear")


class Partial(Network):
    """A layer that is detached beside it, and a parameter that the loss does not reach."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.detached, self.unreached = nn.Linear(6, 6), nn.Parameter(pb.ones(3))

    def forward(self, x: Any, gap: Any) -> Any:
        aside = self.detached(x).detach()  # first
        return super().forward(x + aside * 0.1, gap)


def partial(fault: Fault | None, chance: random.Random) -> Network:
    """Only part of the network is trained."""
    make = lambda n: nn.Sequential(nn.Linear(6, 6), nn.Tanh())  # noqa: E731
    return Partial(_staged(make, fault, chance), (3, 6), "linear", Partial)


class Penalized(Network):
    """The loss has the gradient with respect to the input in it."""

    def forward(self, x: Any, gap: Any) -> Any:
        x = x.detach().requires_grad_()
        loss = super().forward(x, gap)
        (slope,) = pb.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()


def second_order(fault: Fault | None, chance: random.Random) -> Network:
    """A gradient penalty."""
    make = lambda n: nn.Sequential(nn.Linear(6, 6), nn.Softplus())  # noqa: E731
    return Penalized(_staged(make, fault, chance), (3, 6), "linear")


class Looped(nn.Module):
    """A cell that is run over 20 steps; the fault is in it, and shows at one step of them."""

    def __init__(self, fault: Fault | None, at: int):
        super().__init__()
        self.shape, self.at, self.first, self.reader = (20, 3, 6), at, "linear", Looped
        self.given, self.recurrent, self.fault = nn.Linear(6, 6), nn.Linear(6, 6), fault
        self.head = nn.Linear(6, 1)

    def forward(self, x: Any, gap: Any) -> Any:
        gaps = pb.where(pb.arange(20) == self.at, gap, 1.0)

        def body(h: Any, given: Any) -> Any:
            x, gap = given
            h = (self.given(x) + self.recurrent(h)).tanh()  # first
            return h, h if self.fault is None else self.fault(h, gap)

        _, outputs = pb.func.scan(body, pb.zeros(3, 6), (x, gaps))
        return self.head(outputs.float()).square().mean()


class Embedded(Network):
    """Tokens in, through embeddings; the blocks are attention."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.embedding = nn.Embedding(7, self.shape[-1])

    def forward(self, x: Any, gap: Any) -> Any:
        tokens = (x[..., 0].abs() * 3).long() % 7
        h = self.embedding(tokens) + x  # first
        return super().forward(h, gap)


def embedded(fault: Fault | None, chance: random.Random) -> Network:
    """Embeddings before blocks of attention."""
    return Embedded(_staged(lambda n: _Block(8), fault, chance), (2, 4, 8), "add", Embedded)


def looped(fault: Fault | None, chance: random.Random) -> Looped:
    """A recurrent network of one's own."""
    return Looped(fault, chance.randrange(20))


NETWORKS: list[Callable[..., Any]] = [
    mlp, convolutional, normalized, recurrent, transformer, own_rules, mixed_precision, partial, second_order, looped,
    embedded,
]  # fmt: skip
#: those of which every parameter is reached
PLAIN = NETWORKS[:5]
