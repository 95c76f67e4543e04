"""Where a function has no derivative, which of the possible answers is given: PyTorch's, tested and documented."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pullback as pb


@dataclass(frozen=True)
class Point:
    """An expression `function(library, x)` as the documentation writes it, and a point at which it has a kink."""

    written: str
    function: Callable[[Any, Any], Any]
    at: tuple[float, ...]

    def gradient(self, library: Any) -> list[float]:
        """The gradient of the expression's sum at the point."""
        x = library.tensor(self.at, dtype=library.float64, requires_grad=True)
        (found,) = library.autograd.grad(self.function(library, x).sum(), [x])
        return found.tolist()


def _functional(name: str, *arguments: Any) -> Callable[[Any, Any], Any]:
    return lambda f, x: getattr(f.nn.functional, name)(x, *arguments)


def _distance(name: str, **options: float) -> Callable[[Any, Any], Any]:
    return lambda f, x: getattr(f.nn.functional, name)(x, f.zeros_like(x), reduction="sum", **options)


_FAR = (math.inf, -math.inf, math.nan, 2.0)


POINTS = [
    Point("x.abs()", lambda f, x: x.abs(), (0.0,)),
    Point("x.sign()", lambda f, x: x.sign(), (0.0,)),
    Point("x.floor(), x.ceil(), x.round()", lambda f, x: x.floor() + x.ceil() + x.round(), (1.0,)),
    Point("x.sqrt()", lambda f, x: x.sqrt(), (0.0,)),
    Point("x.norm()", lambda f, x: x.norm(), (0.0, 0.0)),
    Point("x.std()", lambda f, x: x.std(), (1.0, 1.0)),
    Point("x.prod()", lambda f, x: x.prod(), (0.0, 2.0, 0.0)),
    Point("x ** 0", lambda f, x: x**0, (0.0,)),
    Point("x.clamp(0, 1)", lambda f, x: x.clamp(0, 1), (0.0, 1.0)),
    Point("x.amax(), x.max()", lambda f, x: x.amax(), (1.0, 1.0, 0.0)),
    Point("x.max(0).values", lambda f, x: x.max(0).values, (1.0, 1.0, 0.0)),
    Point("x.maximum(1)", lambda f, x: x.maximum(f.ones_like(x)), (1.0,)),
    Point("x % 1", lambda f, x: x % 1, (1.0,)),
    Point("relu(x)", lambda f, x: x.relu(), (0.0,)),
    Point("leaky_relu(x, 0.1)", _functional("leaky_relu", 0.1), (0.0,)),
    Point("l1_loss(x, 0)", lambda f, x: f.nn.functional.l1_loss(x, f.zeros_like(x)), (0.0,)),
    Point("x.max(), x.min()", lambda f, x: x.max() + x.min(), (math.nan, 1.0, math.nan)),
    Point("x.amax()", lambda f, x: x.amax(), (math.nan, 1.0)),
    Point("hardsigmoid(x)", _functional("hardsigmoid"), (math.nan, -3.0, 3.0)),
    Point("huber_loss(x, 0, delta=2)", _distance("huber_loss", delta=2.0), _FAR),
    Point("smooth_l1_loss(x, 0, beta=2)", _distance("smooth_l1_loss", beta=2.0), _FAR),
    Point("binary_cross_entropy_with_logits(x, 0)", _distance("binary_cross_entropy_with_logits"), (*_FAR[:3], 0.0)),
]


def table() -> str:
    """The points and the gradients there, in Markdown."""
    rows = [f"| `{p.written}` | {_listed(p.at)} | {_listed(p.gradient(pb))} |" for p in POINTS]
    return "\n".join(["| expression | x | gradient by x |", "|---|---|---|", *rows, ""])


def _listed(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values)
