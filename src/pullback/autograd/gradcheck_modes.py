"""What `gradcheck` compares besides reverse mode: forward mode, batches of both, and outputs without cotangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..graph.types import to_carrier
from ..ops.primitive import user_source

#: how many cotangents, or tangents, are in a batch
_BATCH = 3


class Point(NamedTuple):
    """A function of the inputs that are checked, to a tuple of outputs of floats, and where it is looked at.

    `places` are the numbers of these inputs among all; `eps`, `rtol` and `atol` the step and the tolerances.
    """

    function: Callable[..., tuple[Any, ...]]
    primals: tuple[Any, ...]
    places: tuple[int, ...]
    eps: float
    rtol: float
    atol: float
    random: np.random.Generator

    def drawn(self, like: Any, count: int | None = None) -> Any:
        """Random numbers in the shape of `like`, or a batch of such."""
        from ..tensor.creation import tensor

        shape = tuple(like.shape) if count is None else (count, *like.shape)
        return tensor(np.asarray(self.random.uniform(0.5, 1.5, shape)), dtype=like.dtype)

    def differ(self, found: Any, wanted: np.ndarray) -> tuple[list[int], float, float] | None:
        """The first element that differs, and both its values."""
        values = array(found)
        close = np.isclose(values, wanted, rtol=self.rtol, atol=self.atol, equal_nan=True)
        if np.all(close):
            return None
        at = np.unravel_index(int(np.argmin(close)), close.shape)
        return [int(i) for i in at], float(values[at]), float(wanted[at])


def array(value: Any) -> np.ndarray:
    """The values of a tensor in float64."""
    return to_carrier(value.detach()._array(), value.dtype).astype(np.float64)


def forward(point: Point) -> str | None:
    """Forward mode against central differences, along one random direction."""
    from ..func import jvp

    tangents = tuple(point.drawn(p) for p in point.primals)
    _, derivatives = jvp(point.function, point.primals, tangents)
    ahead, behind = (
        point.function(
            *((p + sign * point.eps * t).requires_grad_() for p, t in zip(point.primals, tangents, strict=True))
        )
        for sign in (1, -1)
    )
    for place, (found, high, low) in enumerate(zip(derivatives, ahead, behind, strict=True)):
        differs = point.differ(found, (array(high) - array(low)) / (2 * point.eps))
        if differs is not None:
            at, got, expected = differs
            return (
                f"gradcheck: output {place}, element {at}: along a random direction forward mode gives {got:.8g}, "
                f"finite differences give {expected:.8g} (step {point.eps:g}, at {user_source()})"
            )
    return None


def batched(point: Point) -> str | None:
    """`vmap` of reverse mode over cotangents, against one at a time."""
    from ..func import vjp, vmap

    outputs, pull = vjp(point.function, *point.primals)
    cotangents = tuple(point.drawn(o, _BATCH) for o in outputs)
    together = vmap(lambda *given: pull(given))(*cotangents)
    return _compared(point, "reverse mode: input", point.places, together, lambda i: pull(_row(cotangents, i)))


def batched_forward(point: Point) -> str | None:
    """`vmap` of forward mode over tangents, against one at a time."""
    from ..func import linearize, vmap

    _, push = linearize(point.function, *point.primals)
    tangents = tuple(point.drawn(p, _BATCH) for p in point.primals)
    together = vmap(push)(*tangents)
    places = range(len(together))
    return _compared(point, "forward mode: output", places, together, lambda i: push(*_row(tangents, i)))


def _row(batch: Sequence[Any], number: int) -> tuple[Any, ...]:
    return tuple(one[number] for one in batch)


def _compared(
    point: Point, what: str, places: Sequence[int], together: Sequence[Any], alone: Callable[[int], Sequence[Any]]
) -> str | None:
    for number in range(_BATCH):
        for place, batch, one in zip(places, together, alone(number), strict=True):
            differs = point.differ(batch[number], array(one))
            if differs is not None:
                at, got, expected = differs
                return (
                    f"gradcheck: {what} {place}, element {at}: a batch gives {got:.8g} for its number {number}, alone "
                    f"it is {expected:.8g} (at {user_source()})"
                )
    return None


def undefined(point: Point) -> str | None:
    """The gradients of each output alone, against those where the cotangents of the others are zeros."""
    from .backward import grad

    inputs = [p.detach().requires_grad_() for p in point.primals]
    outputs = [o for o in point.function(*inputs) if o.requires_grad]
    if len(outputs) < 2:
        return None
    for place, output in enumerate(outputs):
        cotangent = point.drawn(output)
        zeros = [cotangent if o is output else o.detach() * 0 for o in outputs]
        alone = grad(output, inputs, cotangent, retain_graph=True, allow_unused=True)
        among = grad(outputs, inputs, zeros, retain_graph=True, allow_unused=True)
        for number, one, other in zip(point.places, alone, among, strict=True):
            wanted = np.zeros(()) if other is None else array(other)
            differs = point.differ(one, wanted) if one is not None else None
            if differs is not None or (one is None and np.any(wanted)):
                return (
                    f"gradcheck: the gradient of input {number} by output {place} alone is not that with zeros for the "
                    f"cotangents of the others (at {user_source()}): None stands for zeros in a backward"
                )
    return None


__all__ = ["Point", "batched", "batched_forward", "forward", "undefined"]
