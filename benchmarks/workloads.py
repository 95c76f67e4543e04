"""Training workloads written once in PyTorch's API, for any library that has it: what tests and benchmarks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

GPT = {
    "gpt-char": dict(vocabulary=65, context=64, width=128, heads=4, layers=4, batch=12),
    "gpt-mid": dict(vocabulary=512, context=256, width=384, heads=6, layers=6, batch=8),
    "gpt-deep": dict(vocabulary=512, context=256, width=256, heads=4, layers=24, batch=8),
    "gpt2": dict(vocabulary=50304, context=256, width=768, heads=12, layers=12, batch=2),
}
SMALL = ("mlp", "sigmoid20", "ppo")
NAMES = (*SMALL, "lstm", "gpt-char", "gpt-mid", "gpt2", "resnet20")
#: measured only when asked for by name
BY_NAME = ("gpt-deep",)
#: what the name of a GPT ends with where its products are made in bfloat16
BF16 = "-bf16"


@dataclass
class Workload:
    """A model of library `library` with its data: `forward()` gives the loss, `step()` trains once and gives it too."""

    library: Any
    model: Any
    optimizer: Any
    forward: Callable[[], Any]
    clip: float | None

    def step(self) -> Any:
        """One training step; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = self.forward()
        loss.backward()
        if self.clip is not None:
            self.library.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=self.clip)
        self.optimizer.step()
        return loss


def _gpt(library: Any, vocabulary: int, context: int, width: int, heads: int, layers: int) -> Any:
    nn, functional = library.nn, library.nn.functional

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            pieces = self.qkv(self.norm1(x)).split(width, 2)
            q, k, v = (piece.view(batch, length, heads, width // heads).transpose(1, 2) for piece in pieces)
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.token.weight

        def forward(self, x: Any) -> Any:
            hidden = self.token(x) + self.position(library.arange(x.shape[1]))
            for block in self.blocks:
                hidden = block(hidden)
            return self.head(self.norm(hidden))

    return Model()


def _lstm(library: Any) -> Any:
    nn = library.nn

    class Model(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(32, 128, 2, batch_first=True), nn.Linear(128, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    return Model()


def _resnet(library: Any, blocks: int) -> Any:
    """He et al., "Deep Residual Learning for Image Recognition" (2015), section 4.2: 20 layers for 3 blocks a stage."""
    nn, functional = library.nn, library.nn.functional

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
            projection = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
            self.skip = nn.Sequential(*(projection if (inputs, stride) != (outputs, 1) else []))

        def forward(self, x: Any) -> Any:
            y = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(self.bn2(self.conv2(y)) + self.skip(x))

    widths = [(16, 16, 1)] + [(16, 16, 1)] * (blocks - 1)
    for inputs, outputs in ((16, 32), (32, 64)):
        widths += [(inputs, outputs, 2)] + [(outputs, outputs, 1)] * (blocks - 1)
    first = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*first, *[Block(*sizes) for sizes in widths], *last)


def sigmoid_network(library: Any, layers: int, seed: int = 0, fused: bool | None = None) -> Workload:
    """`layers` × (Linear 64 + Sigmoid) on a single example."""
    nn = library.nn
    random = np.random.default_rng(seed)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(layers)])
    x, y = (library.tensor(random.standard_normal((1, 64)).astype(np.float32)) for _ in range(2))
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    return Workload(library, model, optimizer, lambda: ((model(x) - y) ** 2).mean(), None)


def width_network(library: Any, width: int, batch: int, seed: int = 0, fused: bool | None = None) -> Workload:
    """Linear layers 10 → `width` → `width` → 10 that learn to repeat their input, as in pytorch issue 144633."""
    nn, random = library.nn, np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(10, width), nn.Linear(width, width), nn.Linear(width, 10))
    x = library.tensor(random.standard_normal((batch, 10)).astype(np.float32))
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    return Workload(library, model, optimizer, lambda: nn.functional.mse_loss(model(x), x), None)


def build(
    library: Any, name: str, seed: int = 0, fused: bool | None = None, bf16: bool = False, **changes: Any
) -> Workload:
    """The workload `name` in `library`, with data made from `seed`; `changes` are of a GPT's sizes,
    resnet20's or lstm's.

    `fused` is the optimizer's argument of that name; with `bf16` the forward pass runs under autocast to bfloat16.
    """
    workload = _build(library, name, seed, fused, **changes)
    return replace(workload, forward=_in_bfloat16(library, workload.forward)) if bf16 else workload


def _in_bfloat16(library: Any, forward: Callable[[], Any]) -> Callable[[], Any]:
    def lowered() -> Any:
        with library.autocast("cpu", dtype=library.bfloat16):
            return forward()

    return lowered


def _build(library: Any, name: str, seed: int, fused: bool | None, **changes: Any) -> Workload:
    nn, functional = library.nn, library.nn.functional
    random = np.random.default_rng(seed)
    real = lambda *shape: library.tensor(random.standard_normal(shape).astype(np.float32))  # noqa: E731
    whole = lambda high, *shape: library.tensor(random.integers(0, high, shape))  # noqa: E731
    if name == "mlp":
        model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
        x, y, criterion = real(32, 128), whole(10, 32), nn.CrossEntropyLoss()
        optimizer = library.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        return Workload(library, model, optimizer, lambda: criterion(model(x), y), None)
    if name == "sigmoid20":
        return sigmoid_network(library, 20, seed, fused)
    if name == "ppo":
        mlp = lambda out: nn.Sequential(  # noqa: E731
            nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out)
        )
        model = nn.ModuleList([mlp(4), mlp(1)])
        observed, taken = real(64, 8), whole(4, 64, 1)
        old, advantage, returned = real(64) - 1, real(64), real(64)

        def forward() -> Any:
            logp = functional.log_softmax(model[0](observed), dim=-1)
            ratio = (logp.gather(1, taken)[:, 0] - old).exp()
            policy = -library.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
            value = functional.mse_loss(model[1](observed)[:, 0], returned)
            return policy + 0.5 * value + 0.01 * (logp.exp() * logp).sum(-1).mean()

        return Workload(library, model, library.optim.Adam(model.parameters(), lr=3e-4, fused=fused), forward, 0.5)
    if name == "lstm":
        given = {"batch": 32, "steps": 50, **changes}
        model = _lstm(library)
        x, y = real(given["batch"], given["steps"], 32), real(given["batch"], 1)
        optimizer = library.optim.Adam(model.parameters(), fused=fused)
        return Workload(library, model, optimizer, lambda: functional.mse_loss(model(x), y), None)
    if name == "resnet20":
        given = {"blocks": 3, "batch": 64, "size": 32, **changes}
        model, criterion = _resnet(library, given["blocks"]), nn.CrossEntropyLoss()
        x, y = real(given["batch"], 3, given["size"], given["size"]), whole(10, given["batch"])
        optimizer = library.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
        return Workload(library, model, optimizer, lambda: criterion(model(x), y), None)
    sizes = {**GPT[name], **changes}
    batch = sizes.pop("batch")
    model = _gpt(library, **sizes)
    vocabulary, context = sizes["vocabulary"], sizes["context"]
    x, y = whole(vocabulary, batch, context), whole(vocabulary, batch, context)
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    forward = lambda: functional.cross_entropy(model(x).view(-1, vocabulary), y.view(-1))  # noqa: E731
    return Workload(library, model, optimizer, forward, 1.0)


def copy_weights(source: Any, target: Any, library: Any) -> None:
    """Load the state of a PyTorch module into the same module of `library`."""
    target.load_state_dict({k: library.tensor(v.detach().numpy()) for k, v in source.state_dict().items()})
