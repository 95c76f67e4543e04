"""Tighten: loops carry, read and stack only what is asked of them.

before → after:
- carries that no result depends on, and operands that are then not read, are gone;
- operands that are one number become numbers in the body;
- the stack of a carry, before each step or after it, is a part of its *history*: one value of one more place than there
  are steps, in which the loop finds the carry of one step where the step before has left it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.node import Graph, Node, ancestors
from ..ops.body import Body
from ..ops.movement import expand, reshape, slice_
from ..ops.primitive import constant, grad_mode, source_of
from ..ops.scan import PART, REPEAT, final, history, scan, stacked
from .simplify import number_of, simplify


def tighten_loops(graph: Graph) -> Graph:
    """The graph with its loops tightened."""
    parts: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op is PART:
            parts.setdefault(node.inputs[0], []).append(node)
    if not parts:
        return graph
    new: dict[Node, Node] = {}
    with grad_mode(False):
        for node in graph.nodes:
            inputs = () if node.buffer is not None else tuple(new.get(i, i) for i in node.inputs)
            if node.op is REPEAT:
                with source_of(node):
                    new.update(_tightened(node.with_inputs(inputs), node, parts[node]))
            elif node.op is not PART and inputs != node.inputs and node.buffer is None:
                new[node] = node.with_inputs(inputs)
    return simplify(Graph.of([new.get(node, node) for node in graph.outputs]))


def _tightened(loop: Node, original: Node, parts: list[Node]) -> dict[Node, Node]:
    """What stands for the loop's `parts`, and the loop."""
    body: Body = loop["body"]
    finals = {part["place"] for part in parts if part["of"] == "final"}
    stacks = {body.values[part["place"]] for part in parts if part["of"] == "stack"}
    carries = _needed_carries(body, finals, stacks)
    needed = ancestors([*(body.next[i] for i in carries), *stacks, *(body.parameters[i] for i in carries)])
    count = len(body.next)
    operands = [k for k in range(count, len(loop.inputs)) if body.parameters[k] in needed]
    numbers = {k: n for k in operands if (n := number_of(loop.inputs[k])) is not None}
    known: dict[Node, Node] = {
        body.parameters[k]: expand(constant(n, body.parameters[k].dtype), body.parameters[k].shape)
        for k, n in numbers.items()
    }
    for node in sorted(needed, key=lambda n: n.serial):
        if node not in known:
            known[node] = node.with_inputs(tuple(known[i] for i in node.inputs))
    kept = [k for k in operands if k not in numbers]
    slices = [k for k in kept if k < count + loop["slices"]]
    constants = [k for k in kept if k >= count + loop["slices"]]
    inner = Body(
        [known[body.parameters[k]] for k in (*carries, *slices, *constants)],
        [known[body.next[i]] for i in carries],
        sorted(ancestors(known.values()), key=lambda n: n.serial),
    )
    init, xs, fixed = ([loop.inputs[k] for k in places] for places in (carries, slices, constants))
    tight = scan(inner, init, xs, fixed, loop["length"], loop["reverse"])
    found = {original: tight}
    for part in parts:
        with source_of(part):
            if part["of"] == "final":
                found[part] = final(tight, carries.index(part["place"]))
            else:
                found[part] = _stack(tight, known[body.values[part["place"]]])
    return _with_histories(tight, found)


def _needed_carries(body: Body, finals: Iterable[int], stacks: Iterable[Node]) -> list[int]:
    """The carries that the results depend on, in order."""
    needed = set(finals)
    while True:
        values = ancestors([*stacks, *(body.next[i] for i in needed)])
        more = {i for i in range(len(body.next)) if body.parameters[i] in values} | needed
        if more == needed:
            return sorted(needed)
        needed = more


def _stack(loop: Node, value: Node) -> Node:
    """`value` at each step, where it is a carry as a part of the carry's history."""
    body: Body = loop["body"]
    length, reverse = loop["length"], loop["reverse"]
    carries = body.parameters[: len(body.next)]
    for number, (before, after) in enumerate(zip(carries, body.next, strict=True)):
        if value in (before, after):
            start = int((value is after) != reverse)
            whole = history(loop, number)
            return slice_(whole, ((start, start + length), *((0, size) for size in value.shape)))
    return stacked(loop, value)


def _with_histories(loop: Node, found: dict[Node, Node]) -> dict[Node, Node]:
    """Final carries whose history there is are the last place of it."""
    known = {n.inputs[0]["place"] for n in found.values() if n.op.name == "slice" and n.inputs[0].op is PART}
    for part, node in found.items():
        if node.op is PART and node["of"] == "final" and node["place"] in known:
            last = 0 if loop["reverse"] else loop["length"]
            whole = history(loop, node["place"])
            sizes = ((0, size) for size in node.shape)
            found[part] = reshape(slice_(whole, ((last, last + 1), *sizes)), node.shape)
    return found
