"""Twenty layers of sigmoids, whose gradients vanish on the way back, and the five cures, as a plot.

    python examples/vanishing_gradients.py [figure.svg]

The network is that of the textbook: 20 × (Linear 64 + Sigmoid), here with data that it can learn: a function of the
inputs that a small network gives. Each cure changes one thing: ReLU in place of sigmoid (with the initialization that
suits it); residual connections; LayerNorm; a careful initialization alone (Glorot & Bengio's, times the 4 that a
sigmoid's slope of 1/4 takes away); and, for gradients that explode because weights were made too large, clipping.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pullback as pb

nn = pb.nn
DEPTH, WIDTH, BATCH, STEPS = 20, 64, 256, 300


class Residual(nn.Module):
    """x + f(x): the gradient passes by f unchanged."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return x + self.layer(x)


def sigmoid() -> list[nn.Module]:
    """A layer as the textbook has it."""
    return [nn.Linear(WIDTH, WIDTH), nn.Sigmoid()]


def relu() -> list[nn.Module]:
    """ReLU, and He's initialization for it."""
    linear = nn.Linear(WIDTH, WIDTH)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    return [linear, nn.ReLU()]


def residual() -> list[nn.Module]:
    """The same layer beside a way past it."""
    return [Residual(nn.Sequential(*sigmoid()))]


def normalized() -> list[nn.Module]:
    """What leaves the sigmoid gets a deviation of 1."""
    linear = nn.Linear(WIDTH, WIDTH)
    nn.init.xavier_normal_(linear.weight)
    return [linear, nn.Sigmoid(), nn.LayerNorm(WIDTH)]  # which divides by the deviation that the sigmoid leaves


def careful() -> list[nn.Module]:
    """Weights so large that the slope of the sigmoid is made up for."""
    linear = nn.Linear(WIDTH, WIDTH)
    nn.init.xavier_normal_(linear.weight, gain=4.0)
    nn.init.constant_(linear.bias, 0.0)
    with pb.no_grad():  # a sigmoid's results lie around 1/2: what that adds is taken away
        linear.bias.copy_(-0.5 * linear.weight.sum(1))
    return [linear, nn.Sigmoid()]


def exploding() -> list[nn.Module]:
    """Weights a quarter larger than those of `relu`."""
    linear = nn.Linear(WIDTH, WIDTH)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    with pb.no_grad():
        linear.weight.mul_(1.25)
    return [linear, nn.ReLU()]


@dataclass
class Run:
    """A network to train; `depth` is the root mean square of each layer's gradient at the first step."""

    name: str
    layer: Callable[[], list[nn.Module]]
    clip: float | None = None
    rate: float = 1e-3
    depth: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    alerts: list[pb.Alert] = field(default_factory=list)


def runs() -> list[Run]:
    """The sick network, its cures, and what clipping cures with and without it."""
    return [
        Run("20 sigmoid layers", sigmoid),
        Run("1. ReLU", relu),
        Run("2. residual connections", residual),
        Run("3. LayerNorm", normalized),
        Run("4. initialization", careful),
        Run("weights too large", exploding, rate=0.02),
        Run("5. … with clipping", exploding, clip=1.0, rate=0.02),
    ]


def train(run: Run, steps: int = STEPS) -> Run:
    """Train a network by SGD or Adam, and keep what the monitor records."""
    pb.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, 1))
    x = pb.randn(BATCH, WIDTH)
    with pb.no_grad():
        y = teacher(x)
        y = (y - y.mean()) / y.std()
    model = nn.Sequential(*[part for _ in range(DEPTH) for part in run.layer()], nn.Linear(WIDTH, 1))
    is_exploding = run.layer is exploding
    optimizer = (pb.optim.SGD if is_exploding else pb.optim.Adam)(model.parameters(), lr=run.rate)
    monitor = pb.Monitor(model, optimizer, every=10)

    @pb.compile(on_nonfinite="skip" if is_exploding else "raise")
    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        if run.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=run.clip)
        optimizer.step()
        return loss

    run.losses = [step(x, y).item() for _ in range(steps)]
    layers = [name for name in monitor.records[0].depth if "." in name or int(name) < len(model) - 1]
    run.depth = [monitor.records[0].depth[name] for name in layers]
    run.alerts = monitor.alerts
    return run


def draw(done: list[Run], path: Path) -> None:
    """Gradients over depth, and losses, beside one another."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for run in done:
        style = {"color": "black", "linewidth": 2.5} if run is done[0] else {}
        dashed = "--" if run.layer is exploding else "-"
        left.semilogy(range(1, DEPTH + 1), run.depth, dashed, label=run.name, **style)
        diverged = not all(map(math.isfinite, run.losses))
        marker, label = ("x", f"{run.name}: diverges") if diverged else (None, run.name)
        right.semilogy(range(1, len(run.losses) + 1), run.losses, dashed, label=label, marker=marker, **style)
    left.set(xlabel="layer, from the input", ylabel="gradient of its weights (rms)", title="At the first step")
    left.set_xticks(range(1, DEPTH + 1, 3))
    right.set(xlabel="step", ylabel="loss (1 is the variance of the targets)", title="While training")
    right.set_ylim(1e-3, 1e3)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=8, loc="upper right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def main() -> None:
    """Train all networks, print what became of them, and draw them."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "vanishing_gradients.svg")
    done = [train(run) for run in runs()]
    for run in done:
        told = f"{run.name}: gradient {run.depth[0]:.1e} at the first layer, {run.depth[-1]:.1e} at the last; "
        print(told + f"loss {run.losses[0]:.3g} to {run.losses[-1]:.3g}")
        for alert in run.alerts[:1]:
            print(f"    {alert}")
    draw(done, path)
    print(f"drawn to {path}")


if __name__ == "__main__":
    main()
