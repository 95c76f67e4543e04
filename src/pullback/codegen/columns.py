"""Kernels that reduce axes before the last one: each vector of columns is gone through by itself.

A task takes one place of the axes outside and a block of columns; it runs over the reduced axes with a vector of
totals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import Group
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import int64
from .arithmetic import Value, abilities_of
from .emitter import COMBINE, LANE, VECTOR, Emitter, Slots, identity_of, lane_variable
from .launch import Launch
from .target import Target
from .text import Variable, Writer, code

#: so many elements are added up by themselves before they are added to the total
_LINE = 64


def emit_columns(group: Group, in_memory: Callable[[Node], bool], target: Target) -> Launch:
    """The launch that computes a group of kind COLUMNS: reductions of operands of one shape over the same axes."""
    members = list(group.members)
    operand, axes = members[0].inputs[0], members[0]["axes"]
    last = len(operand.shape) - 1
    width = operand.shape[last]
    kept = [a for a in range(last) if a not in axes]
    lanes = min(target.vector_bytes // 4 * 4, 1 << max(0, width - 1).bit_length())
    blocks = -(-width // lanes)

    writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
    loadable = lambda n: n not in group.members and in_memory(n)  # noqa: E731
    emitter = Emitter(writer, lanes, Slots(), loadable, abilities_of(target))
    for node in members:
        emitter.pointer(node)
    names: dict[str, str] = {}
    number = "%task"
    if blocks > 1:
        number, block = writer.divide(number, blocks)
    else:
        block = "0"
    for axis in reversed(kept):
        number, names[f"k{axis}"] = writer.divide(number, operand.shape[axis])
    start = writer.op(f"mul i64 {block}, {lanes}")
    emitter.begin_row(names)

    places: list[Affine] = []
    for axis, size in enumerate(operand.shape):
        places.append(lane_variable(size) if axis == last else variable(f"{'r' if axis in axes else 'k'}{axis}", size))
    out = tuple(places[a] for a in range(last + 1) if a not in axes)
    a = emitter.vector

    def nothing() -> list[Variable]:
        return [
            writer.variable(a.llvm_type(n.dtype), a.constant(identity_of(n.op.name, n.dtype), n.dtype).ref)
            for n in members
        ]

    def add(totals: list[Variable], values: list[Value]) -> None:
        for node, total, value in zip(members, totals, values, strict=True):
            total.set(getattr(a, COMBINE[node.op.name])(Value(total.get(), node.dtype), value).ref)

    totals = nothing()
    mask = None
    if width % lanes:
        left = writer.op(f"sub i64 {width}, {start}")
        mask = a.lt(a.iota(int64), a.broadcast(Value(left, int64)))

    def take(into: list[Variable], found: dict[str, str]) -> None:
        with emitter.body({**found, LANE: start, "first": start}, mask):
            add(into, [emitter.value(node.inputs[0], Index(operand.shape, tuple(places))) for node in members])

    def by_lines(axis: int, found: dict[str, str]) -> None:
        """Some elements of the innermost axis are added up by themselves first, so that less is rounded off."""
        size = operand.shape[axis]

        def line(first: str) -> None:
            own = nothing()
            stop = writer.minimum(writer.add(first, _LINE), str(size))
            emitter.loop(first, stop, 1, lambda i: take(own, {**found, f"r{axis}": i}))
            add(totals, [Value(variable.get(), node.dtype) for node, variable in zip(members, own, strict=True)])

        emitter.loop("0", str(size), _LINE, line)

    def inside(remaining: list[int], found: dict[str, str]) -> None:
        if not remaining:
            take(totals, found)
        elif len(remaining) == 1:
            by_lines(remaining[0], found)
        else:
            axis, *rest = remaining
            emitter.loop("0", str(operand.shape[axis]), 1, lambda i: inside(rest, {**found, f"r{axis}": i}))

    inside([axis for axis in axes if operand.shape[axis] > 1], {})
    with emitter.body({LANE: start, "first": start}, mask):
        for node, total in zip(members, totals, strict=True):
            emitter.store(Value(total.get(), node.dtype), node, Index(node.shape, out).flat(), VECTOR)
    slots = list(emitter.slots.nodes)
    tasks = blocks * math.prod(operand.shape[k] for k in kept)
    written = set(members)
    return Launch(code("columns", writer), tasks, list(slots), 0, set(slots) - written, written, set())
