"""Networks of the families whose memory others published, at sizes that two cores train, and their figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import workloads
from .workloads import Workload


class Network(NamedTuple):
    """How to build it in a library, a smaller one that runs the same code, the parts of its memory that were published,
    and what was said of them.
    """

    build: Callable[..., Workload]
    smaller: dict[str, int]
    factors: tuple[float, ...]
    published: str


def _images(library: Any, *shape: int) -> Any:
    return library.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def _trained(library: Any, model: Any, forward: Callable[[], Any]) -> Workload:
    return Workload(library, model, library.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), forward, None)


def resnet50(library: Any, width: int = 16, batch: int = 32, size: int = 128) -> Workload:
    """ResNet-50 of a quarter of its width (He et al. 2015, table 1: bottlenecks in stages of 3, 4, 6 and 3)."""
    nn, functional = library.nn, library.nn.functional

    def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]

    class Bottleneck(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, inputs: int, inner: int, stride: int) -> None:
            super().__init__()
            first, second = convolution(inputs, inner, 1), convolution(inner, inner, 3, stride)
            self.way = nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU(), *convolution(inner, 4 * inner, 1))
            same = (inputs, stride) == (4 * inner, 1)
            self.skip = nn.Sequential(*([] if same else convolution(inputs, 4 * inner, 1, stride)))

        def forward(self, x: Any) -> Any:
            return functional.relu(self.way(x) + self.skip(x))

    library.manual_seed(0)
    blocks, inputs = [], width
    for stage, count in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(count):
            blocks.append(Bottleneck(inputs, inner, 2 if stage and not block else 1))
            inputs = 4 * inner
    begin = [*convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    model = nn.Sequential(*begin, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100))
    x, y = _images(library, batch, 3, size, size), library.tensor(np.arange(batch) % 100)
    return _trained(library, model, lambda: functional.cross_entropy(model(x), y))


def unet(library: Any, width: int = 8, batch: int = 4, size: int = 256) -> Workload:
    """U-Net (Ronneberger et al. 2015) of an eighth of its width, padded, with batch normalization."""
    nn, functional = library.nn, library.nn.functional

    def double(inputs: int, outputs: int) -> Any:
        layers: list[Any] = []
        for wide in (inputs, outputs):
            layers += [nn.Conv2d(wide, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            widths = [width << level for level in range(5)]
            self.down = nn.ModuleList([double(a, b) for a, b in zip([3, *widths], widths, strict=False)])
            pairs = list(zip(widths[1:], widths, strict=False))[::-1]
            self.up = nn.ModuleList([nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs])
            self.join = nn.ModuleList([double(wide, narrow) for wide, narrow in pairs])
            self.last = nn.Conv2d(width, 2, 1)

        def forward(self, x: Any) -> Any:
            kept = []
            for level, block in enumerate(self.down):
                x = block(functional.max_pool2d(x, 2) if level else x)
                kept.append(x)
            for up, join, beside in zip(self.up, self.join, kept[-2::-1], strict=True):
                x = join(library.cat([beside, up(x)], 1))
            return self.last(x)

    library.manual_seed(0)
    model = UNet()
    x = _images(library, batch, 3, size, size)
    y = library.tensor(np.random.default_rng(1).integers(0, 2, (batch, size, size)))
    return _trained(library, model, lambda: functional.cross_entropy(model(x), y))


def deep_resnet(library: Any, layers: int = 1000, width: int = 32, batch: int = 1024) -> Workload:
    """A residual network of so many layers, two a block, each with batch normalization (after He et al. 2016)."""
    nn = library.nn

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            one = [nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
            two = [nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
            self.way = nn.Sequential(*one, *two)

        def forward(self, x: Any) -> Any:
            return x + self.way(x)

    library.manual_seed(0)
    model = nn.Sequential(*[Block() for _ in range(layers // 2)])
    x = _images(library, batch, width)
    return _trained(library, model, lambda: model(x).square().mean())


def _gpt(name: str) -> Callable[..., Workload]:
    return lambda library, **sizes: workloads.build(library, name, **sizes)


_ROCKMATE = "Rockmate: 2 to 5× at +10 to 20%"
NETWORKS = {
    "resnet50": Network(resnet50, {"batch": 2, "size": 32}, (3,), "MONeT: 3.0× at +12%"),
    "unet": Network(unet, {"batch": 1, "size": 32}, (2.9,), "MONeT: 2.9× at +11.5%"),
    "gpt-char": Network(_gpt("gpt-char"), {"layers": 1}, (3, 5), _ROCKMATE),
    "gpt-deep": Network(_gpt("gpt-deep"), {"layers": 1}, (3, 5), _ROCKMATE),
    "resnet1000": Network(deep_resnet, {"layers": 2}, (7,), "Chen et al.: 6.9× at +30%"),
}
