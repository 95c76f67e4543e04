"""Kernels that write or check by index: scatter_add, put, bounded; and concatenate, which writes parts of a whole."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import Group, elements
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import int64
from .arithmetic import Value, abilities_of
from .emitter import LANE, SCALAR, VECTOR, Emitter, Slots, lane_variable
from .launch import Launch, Workspace
from .loops import TASK_ELEMENTS
from .target import Target
from .text import Writer, code

#: columns that one task of a scatter covers: rows are added in their order, so only columns can be shared out
_COLUMNS = 64


def _kernel(
    node: Node, lanes: int, in_memory: Callable[[Node], bool], target: Target, base: int = 0
) -> tuple[Writer, Emitter]:
    writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
    slots = Slots(base)
    return writer, Emitter(writer, lanes, slots, lambda n: n is not node and in_memory(n), abilities_of(target))


def _launch(name: str, writer: Writer, emitter: Emitter, node: Node, tasks: int) -> Launch:
    nodes = list(emitter.slots.nodes)
    return Launch(code(name, writer), tasks, list(nodes), 0, set(nodes) - {node}, {node}, set())


def _lanes(target: Target, extent: int) -> int:
    return min(target.vector_bytes // 4, 1 << max(0, extent - 1).bit_length())


def _blocks(emitter: Emitter, width: int, start: str, stop: str, body: Callable[[], None]) -> None:
    """`body` for each vector of columns from `start` to `stop` (at most `width`), the last one masked."""
    writer, a = emitter.writer, emitter.vector
    lanes = a.lanes

    def inside(c: str) -> None:
        mask = None
        if width % lanes:
            left = writer.op(f"sub i64 {width}, {c}")
            mask = a.lt(a.iota(int64), a.broadcast(Value(left, int64)))
        with emitter.body({LANE: c, "first": c}, mask):
            body()

    emitter.loop(start, stop, lanes, inside)


def _written_rows(
    name: str, node: Node, index: Node, rows: Node, in_memory: Callable[[Node], bool], target: Target, add: bool,
    onto: Node | None = None,
) -> Launch:  # fmt: skip
    """rows[i..., c...] added to or written over node[index[i...], c...], in the order of i; if added, from zeros or
    from what is in `onto`.
    """
    count, width = elements(index), math.prod(node.shape[1:])
    lanes = _lanes(target, width)
    block = max(lanes, _COLUMNS // lanes * lanes)
    writer, emitter = _kernel(node, lanes, in_memory, target)
    emitter.pointer(node)
    start = writer.op(f"mul i64 %task, {block}")
    stop = writer.minimum(writer.op(f"add i64 {start}, {block}"), str(width))
    emitter.begin_row({})
    column = lane_variable(width)
    a = emitter.vector
    begun = variable("row", node.shape[0]) * width + column
    if add:

        def clear(r: str) -> None:
            with emitter.body({"row": r}, None):

                def begin() -> None:
                    zero = a.constant(0, node.dtype)
                    first = zero if onto is None else emitter.value(onto, Index.at(begun, onto.shape))
                    emitter.store(first, node, begun, VECTOR)

                _blocks(emitter, width, start, stop, begin)

        emitter.loop("0", str(node.shape[0]), 1, clear)
    # what is read where it is begun with, and nowhere else, may lie where the sum does
    begun_with = {n for n, places in emitter.loaded.items() if n is not node and places == {begun}}
    emitter.loaded.clear()

    def write(i: str) -> None:
        number = variable("item", count)
        with emitter.body({"item": i}, None):
            place = emitter.value(index, Index.at(number, index.shape), SCALAR).ref
            target_row = variable(place, max(2, node.shape[0]))
            where = target_row * width + column
            source = Index.at(number * width + column, rows.shape)

            def one() -> None:
                value = emitter.value(rows, source)
                if add:
                    value = a.add(emitter.load(node, where, VECTOR), value)
                emitter.store(value, node, where, VECTOR)

            _blocks(emitter, width, start, stop, one)

    emitter.loop("0", str(count), 1, write)
    launch = _launch(name, writer, emitter, node, -(-width // block))
    if onto is not None:
        launch.exact = begun_with - emitter.loaded.keys()
        launch.in_place = True
    return launch


def emit_scatter(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launch of a scatter_add, or of its sum with what it is added to."""
    scattered, *above = group.members
    index, rows = scattered.inputs
    if not above:
        return [_written_rows("scatter", scattered, index, rows, in_memory, target, add=True)]
    (total,) = above
    onto = total.inputs[0] if total.inputs[1] is scattered else total.inputs[1]
    return [_written_rows("scatter", total, index, rows, in_memory, target, add=True, onto=onto)]


def _copied(
    node: Node,
    part: Node,
    place: Affine,
    flat: Affine,
    in_memory: Callable[[Node], bool],
    target: Target,
    names: list[str],
) -> Launch:
    """`part` written into node's memory, its element `flat` at `place`; rows are the variables `names`."""
    width = part.shape[-1] if part.shape else 1
    rows = elements(part) // max(1, width)
    writer, emitter = _kernel(node, _lanes(target, width), in_memory, target)
    emitter.pointer(node)
    each = max(1, TASK_ELEMENTS // max(1, width))
    first = writer.op(f"mul i64 %task, {each}")
    last = writer.minimum(writer.op(f"add i64 {first}, {each}"), str(rows))
    with writer.loop(first, last) as number:
        found = {}
        for name, size in reversed(list(zip(names, part.shape[:-1], strict=True))):
            number, found[name] = writer.divide(number, size)
        emitter.begin_row(found)

        def one() -> None:
            emitter.store(emitter.value(part, Index.at(flat, part.shape)), node, place, VECTOR)

        _blocks(emitter, width, "0", str(width), one)
    return _launch("join", writer, emitter, node, -(-rows // each))


def _places(part: Node) -> tuple[list[str], list[Affine]]:
    """Names of the row variables of `part`, and the index along each of its axes."""
    names = [f"a{axis}" for axis in range(len(part.shape) - 1)]
    axes = [variable(name, size) for name, size in zip(names, part.shape[:-1], strict=True)]
    return names, [*axes, lane_variable(part.shape[-1])] if part.shape else []


def emit_put(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches of a put: the old value copied, then the rows written one after the other."""
    (node,) = group.members
    x, index, rows = node.inputs
    names, axes = _places(x)
    flat = Index(x.shape, tuple(axes)).flat()
    copy = _copied(node, x, flat, flat, in_memory, target, names)
    write = _written_rows("put", node, index, rows, in_memory, target, add=False)
    return [copy, write] if elements(index) and elements(rows) else [copy]


def emit_join(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches of a concatenate: each part written to its place."""
    (node,) = group.members
    launches, start = [], 0
    for part in node.inputs:
        if elements(part):
            names, axes = _places(part)
            flat = Index(part.shape, tuple(axes)).flat()
            moved = [axis + start if i == node["axis"] else axis for i, axis in enumerate(axes)]
            place = Index(node.shape, tuple(moved)).flat()
            launches.append(_copied(node, part, place, flat, in_memory, target, names))
        start += part.shape[node["axis"]]
    return launches


def emit_check(group: Group, in_memory: Callable[[Node], bool], target: Target) -> tuple[Launch, Workspace]:
    """The launch of a bounded: it notes the first element out of range as (position + 1, value) in a workspace."""
    (node,) = group.members
    operand = node.inputs[0]
    found = Workspace(16)
    writer, emitter = _kernel(node, 1, in_memory, target, base=1)
    result = writer.argument(0)
    emitter.begin_row({})
    a = emitter.scalar

    def one(i: str) -> None:
        with emitter.body({"item": i}, None):
            value = emitter.value(operand, Index.at(variable("item", elements(operand)), operand.shape), SCALAR)
            outside = a.bit_or(
                a.lt(value, a.constant(node["low"], int64)), a.le(a.constant(node["high"], int64), value)
            )
            if node["ignore"] is not None:
                outside = a.bit_and(outside, a.ne(value, a.constant(node["ignore"], int64)))
            seen = writer.op(f"load i64, ptr {result}")
            first = writer.op(f"icmp eq i64 {seen}, 0")
            with writer.when(writer.op(f"and i1 {outside.ref}, {first}")):
                writer.line(f"store i64 {writer.op(f'add i64 {i}, 1')}, ptr {result}")
                writer.line(f"store i64 {value.ref}, ptr {writer.element(result, 'i64', 1)}")

    emitter.loop("0", str(elements(operand)), 1, one)
    nodes = list(emitter.slots.nodes)
    return Launch(code("check", writer), 1, [found, *nodes], 0, set(nodes), set(), set()), found
