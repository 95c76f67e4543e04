"""Calls of Python functions on NumPy arrays from inside a program, and the wrappers that only differentiation sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import LinAlgError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType, round_to
from .primitive import ALIAS, HOST, MODE, Primitive, apply, complex_refused, register, user_source


def _evaluate_host(node: Node, *arrays: np.ndarray) -> np.ndarray:
    try:
        result = np.asarray(node["function"](*arrays))
    except LinAlgError as error:
        raise LinAlgError(f"{error} (at {node.source})") from None
    if result.dtype.kind == "c":
        raise complex_refused(result.dtype)
    if result.shape != node.shape:
        raise ShapeError(
            f"host_call: {node['function']!r} returned shape {list(result.shape)}, promised {list(node.shape)} "
            f"(at {node.source})"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what the dtype does not hold is an infinity in it, no fault
        return round_to(result.astype(node.dtype.carrier), node.dtype)


#: a pure Python function of NumPy arrays; it has no gradient of its own
HOST_CALL = register(
    Primitive("host_call", HOST, lambda *_, function, shape, dtype: (shape, dtype), _evaluate_host, cost=0)
)


def host_call(inputs: tuple[Node, ...], function: Callable[..., np.ndarray], shape: Shape, dtype: DType) -> Node:
    """`function` on the inputs as NumPy arrays, giving an array of `shape` and `dtype`."""
    return apply(HOST_CALL, *inputs, function=function, shape=tuple(shape), dtype=dtype)


#: the value of its input, through which no gradient goes; also what makes a leaf of a computed value
DETACH = register(Primitive("detach", ALIAS, lambda x: (x.shape, x.dtype), lambda n, x: x, (None,), cost=0))


#: the value of its input, through which gradients go: what makes a clone a tensor of its own
IDENTITY = register(
    Primitive("identity", ALIAS, lambda x: (x.shape, x.dtype), lambda n, x: x, (lambda n, g: g,), cost=0, linear=True)
)

#: the value of its first input, differentiated by `rule(node, cotangent) -> cotangents` of the inputs after the first
CUSTOM = register(
    Primitive(
        "custom",
        ALIAS,
        lambda primal, *_, rule: (primal.shape, primal.dtype),
        lambda n, primal, *_: primal,
        lambda node, cotangent: [None, *node["rule"](node, cotangent)],
        cost=0,
        joint=True,
    )
)


#: what has several results: the inputs are the `count` results' values, then what they are differentiated by, together:
#: `rule(node, {place: cotangent}) -> cotangents` of the latter. `examples`, if any, does the whole for a batch of
#: examples: see `vectorize`. The results themselves are RESULT nodes; this one is for differentiation alone
SEVERAL = register(
    Primitive(
        "several",
        ALIAS,
        lambda primal, *_, **__: (primal.shape, primal.dtype),
        lambda n, primal, *_: primal,
        lambda node, cotangents: [*(None,) * node["count"], *node["rule"](node, cotangents)],
        cost=0,
        joint=True,
    )
)

#: the value of its first input, which is the result `place` of the SEVERAL that its second input is
RESULT = register(
    Primitive(
        "result",
        ALIAS,
        lambda primal, *_, **__: (primal.shape, primal.dtype),
        lambda n, primal, *_: primal,
        (None, None),
        cost=0,
        linear=True,
    )
)


def detach(x: Node, requires_grad: bool = False) -> Node:
    """`x` cut off from its history; with `requires_grad` a leaf of a new one."""
    return Node(DETACH, (x,), {}, x.shape, x.dtype, requires_grad, user_source())


def identity(x: Node) -> Node:
    """`x` as a node of its own."""
    return apply(IDENTITY, x)


def custom(primal: Node, inputs: tuple[Node, ...], rule: Callable[[Node, Node], list[Node | None]]) -> Node:
    """`primal`, a function of `inputs`, with a gradient rule of its own."""
    return apply(CUSTOM, primal, *inputs, rule=rule)


def several(
    primals: tuple[Node, ...],
    inputs: tuple[Node, ...],
    rule: Callable[[Node, dict[int, Node]], list[Node | None]],
    examples: Callable[..., list[Node]] | None = None,
) -> Node:
    """What stands for all of `primals`, functions of `inputs` with one gradient rule; `result` gives each of them."""
    requires_grad = MODE.grad and any(i.requires_grad for i in inputs)
    attributes = {"count": len(primals), "rule": rule, "examples": examples}
    first = primals[0]
    return Node(SEVERAL, (*primals, *inputs), attributes, first.shape, first.dtype, requires_grad, user_source())


def result(joint: Node, place: int, primal: Node | None = None) -> Node:
    """The result `place` of `joint`; of the value `primal` if given."""
    return apply(RESULT, joint.inputs[place] if primal is None else primal, joint, place=place)
