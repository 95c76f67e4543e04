"""Scan: a loop whose body is compiled once, with a gradient that is a scan again.

A `scan` node carries values from step to step and reads a slice of further operands at each. It has no value of its
own; its results are `part` nodes: the *final* value of a carry, or the *stack* of any value of the body over all steps.
So differentiation can ask an existing scan for what it needs to know of its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..graph.interpreter import interpret
from ..graph.node import Graph, Node, Shape
from ..graph.types import DType, float32
from .body import Body
from .primitive import MODE, SCAN, Primitive, register, user_source
from .scan_gradient import Gradients, Reverse

Selector = tuple[str, int]


def _evaluate_scan(node: Node, *arrays: np.ndarray, wanted: Sequence[Selector]) -> dict[Selector, np.ndarray]:
    """The wanted results, step by step."""
    body, length = node["body"], node["length"]
    count = len(body.next)
    slices, constants = arrays[count : count + node["slices"]], arrays[count + node["slices"] :]
    carries = list(arrays[:count])
    places = sorted({place for of, place in wanted if of == "stack"})
    graph = Graph.of([*body.next, *(body.values[place] for place in places)])
    stacks = {place: _empty_stack(body.values[place], length) for place in places}
    histories = {i: _empty_stack(body.parameters[i], length + 1) for of, i in wanted if of == "history"}
    for history in histories:
        histories[history][length if node["reverse"] else 0] = carries[history]
    for step in steps_of(node):
        given = dict(zip(body.parameters, (*carries, *(x[step] for x in slices), *constants), strict=True))
        results = interpret(graph, given.__getitem__)
        carries = results[:count]
        for place, value in zip(places, results[count:], strict=True):
            stacks[place][step] = value
        for history in histories:
            histories[history][step + (not node["reverse"])] = carries[history]
    found = {"final": dict(enumerate(carries)), "stack": stacks, "history": histories}
    return {(of, place): np.asarray(found[of][place]) for of, place in wanted}


def steps_of(loop: Node) -> Iterable[int]:
    """Which slice each step of a loop reads, in the order of computation."""
    return reversed(range(loop["length"])) if loop["reverse"] else range(loop["length"])


def _pull(
    loop: Node, cotangents: Mapping[Selector, Node], indices: Sequence[int], gradients: Gradients
) -> list[Node | None]:
    return Reverse(loop, cotangents, gradients).run(indices)


def _empty_stack(node: Node, length: int) -> np.ndarray:
    return np.empty((length, *node.shape), node.dtype.carrier)


def _infer_part(scan: Node, *, of: str, place: int) -> tuple[Shape, DType]:
    body, length = scan["body"], scan["length"]
    value = body.values[place] if of == "stack" else body.parameters[place]
    lead = {"final": (), "stack": (length,), "history": (length + 1,)}[of]
    return (*lead, *value.shape), value.dtype


#: the loop itself: initial carries, then operands of which each step reads a slice, then constants of the body
REPEAT = register(
    Primitive("scan", SCAN, lambda *_, **__: ((), float32), _evaluate_scan, _pull, cost=0)  # type: ignore[arg-type]
)
#: one result of a scan. `of` is "final" (a carry after the last step), "stack" (a value of the body at each step) or
#: "history" (a carry before the first and after each step, in the order of the slices)
PART = register(
    Primitive(
        "part",
        SCAN,
        _infer_part,
        lambda node, results: results[node["of"], node["place"]],
        lambda node, cotangent, index: cotangent,
        cost=0,
        linear=True,
    )
)


def scan(
    body: Body, init: Sequence[Node], xs: Sequence[Node], constants: Sequence[Node], length: int, reverse: bool
) -> Node:
    """The loop of `body` over `length` steps, from the last to the first if `reverse`; ask for its results with
    `final` and `stacked`."""
    inputs = (*init, *xs, *constants)
    attributes = {"body": body, "slices": len(xs), "length": length, "reverse": reverse}
    differentiable = MODE.grad and any(i.requires_grad for i in inputs)
    return Node(REPEAT, inputs, attributes, (), float32, differentiable, user_source())


def _part(loop: Node, of: str, place: int, value: Node) -> Node:
    shape, dtype = _infer_part(loop, of=of, place=place)
    differentiable = MODE.grad and loop.requires_grad and value.requires_grad
    return Node(PART, (loop,), {"of": of, "place": place}, shape, dtype, differentiable, user_source())


def final(loop: Node, carry: int) -> Node:
    """Carry number `carry` after the last step."""
    return _part(loop, "final", carry, loop["body"].next[carry])


def stacked(loop: Node, value: Node) -> Node:
    """A value of the loop's body at each step, along a new first axis."""
    body: Body = loop["body"]
    count = len(body.next)
    for number, given in enumerate(body.parameters[count : count + loop["slices"]]):
        if value is given:
            return loop.inputs[count + number]
    return _part(loop, "stack", body.place(value), value)


def history(loop: Node, carry: int) -> Node:
    """Carry number `carry` before the first step and after each, in the order of the slices."""
    return _part(loop, "history", carry, loop["body"].parameters[carry])
