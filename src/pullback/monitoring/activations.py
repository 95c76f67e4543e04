"""Where activation functions are flat: which elements of their results count as saturated, and which units are dead.

Functions are known by their modules, and by their operations where they are called as functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from ..graph.node import Node
from ..nn import modules
from ..ops.elementwise import absolute, convert, le, lt, sub
from ..ops.primitive import constant
from ..ops.reduction import reduce_max
from .statistics import share

#: the slope of a sigmoid is below 0.01, a twenty-fifth of its largest, where the result is this near to 0 or 1
_NEAR = 0.01
#: the slope of a hyperbolic tangent is below 0.02, a fiftieth of its largest, where the result is beyond this
_FAR = 0.99

#: the kinds that are told apart, and the modules of each
SIGMOID, TANH, RELU, SOFTMAX = "sigmoid", "tanh", "relu", "softmax"
_MODULES = {
    SIGMOID: ("Sigmoid", "Hardsigmoid"),
    TANH: ("Tanh", "Hardtanh", "Softsign"),
    RELU: ("ReLU", "ReLU6", "Threshold", "Hardshrink", "Softshrink"),
    SOFTMAX: ("Softmax", "Softmax2d"),
}
_KINDS = {name: kind for kind, names in _MODULES.items() for name in names if hasattr(modules, name)}
#: how far back the layer that feeds a ReLU is looked for
_FAR_BACK = 64


def kind_of(module: object) -> str | None:
    """The kind of activation function that a module is; None for other modules."""
    return next((_KINDS[each.__name__] for each in type(module).__mro__ if each.__name__ in _KINDS), None)


def sums_of_saturation(kind: str, y: Node) -> dict[str, Node]:
    """Numbers that tell how flat the function is at its results `y`: "saturated" counts elements (rows, of a softmax),
    "dead" the units of a ReLU that are zero at every place. ("zeros" are the saturated elements of a ReLU.)
    """
    wide = convert(y, y.dtype.compute)
    if kind == SIGMOID:
        middle = absolute(sub(wide, constant(0.5, wide.dtype)))
        return {"saturated": share(lt(constant(0.5 - _NEAR, wide.dtype), middle), wide)}
    if kind == TANH:
        return {"saturated": share(lt(constant(_FAR, wide.dtype), absolute(wide)), wide)}
    if kind == SOFTMAX:
        largest = reduce_max(wide, (len(y.shape) - 1,)) if y.shape else wide
        return {"saturated": share(lt(constant(_FAR, wide.dtype), largest), wide)}
    if places_of_a_unit(y) < 2:
        return {}
    unit = unit_axis(y)
    greatest = reduce_max(wide, tuple(axis for axis in range(len(y.shape)) if axis != unit))
    return {"dead": share(le(greatest, constant(0.0, wide.dtype)), greatest)}


def unit_axis(y: Node) -> int:
    """The axis of `y` that its units, or channels, lie along: 1 behind a convolution, else the last."""
    if len(y.shape) > 3:
        return 1
    return 1 if len(y.shape) == 3 and _is_convolved(y) else len(y.shape) - 1


def units_of(y: Node) -> int:
    """How many units there are."""
    return y.shape[unit_axis(y)] if y.shape else 1


def places_of_a_unit(y: Node) -> int:
    """How many values each unit has: examples, and places of each."""
    return math.prod(y.shape) // max(1, units_of(y))


def _is_convolved(y: Node) -> bool:
    """Whether the last layer before `y` is a convolution."""
    for node in _backwards([y], _FAR_BACK):
        if node.op.name in ("convolution", "matmul"):
            return bool(node.op.name == "convolution")
    return False


def _backwards(nodes: Iterable[Node], most: int) -> Iterator[Node]:
    """What nodes are made of, the latest first."""
    waiting, seen = list(nodes), set(nodes)
    for _ in range(most):
        if not waiting:
            return
        node = max(waiting, key=lambda n: n.serial)
        waiting.remove(node)
        yield node
        new = [i for i in node.inputs if i not in seen]
        seen.update(new)
        waiting += new


def function_of(node: Node) -> str | None:
    """The kind of activation function that a node is the result of, called by the user as a function or a method."""
    source = node.source
    if source is None or source.operation not in (SIGMOID, TANH, RELU) or not node.dtype.is_floating_point:
        return None
    if source.operation == RELU:
        return RELU if node.op.name == "where" else None
    return source.operation if node.op.name == source.operation else None


__all__ = [
    "RELU", "SIGMOID", "SOFTMAX", "TANH", "function_of", "kind_of", "places_of_a_unit", "sums_of_saturation",
    "units_of",
]  # fmt: skip
