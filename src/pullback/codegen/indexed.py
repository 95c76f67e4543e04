"""Kernels that write or check by index: scatter_add, put, bounded; and concatenate, which writes parts of a whole."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import FULL, Group, elements
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import int64
from .emitter import LANE, SCALAR, VECTOR, Emitter, Slots, lane_variable
from .launch import Argument, Launch, Workspace
from .loops import TASK_ELEMENTS
from .partials import Across, Partials, across_of
from .registers import Value
from .target import Target, abilities_of
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


class _WrittenRows:
    """rows[i..., c...] added to or written over node[index[i...], c...], in the order of i.

    Where they are added it begins with zeros or with what is in `onto`.

    A task has a block of columns, of all rows. For the totals in `across` it takes in the rows that no index names as
    it begins them, and the others when all has been added to them: these are still in its cache.
    """

    def __init__(
        self, name: str, node: Node, index: Node, rows: Node, in_memory: Callable[[Node], bool], target: Target,
        add: bool, onto: Node | None = None, across: Across | None = None,
    ):  # fmt: skip
        self.name, self.node, self.index, self.rows, self.onto, self.add = name, node, index, rows, onto, add
        self.across, self.target = across, target
        self.count, self.width = elements(index), math.prod(node.shape[1:])
        self.lanes = _lanes(target, self.width)
        self.block = max(self.lanes, _COLUMNS // self.lanes * self.lanes)
        slots = 0 if across is None else len(across.totals)
        self.writer, self.emitter = _kernel(node, self.lanes, in_memory, target, slots)
        self.column = lane_variable(self.width)

    def launches(self) -> list[Launch]:
        writer, emitter, node = self.writer, self.emitter, self.node
        emitter.pointer(node)
        self.start = writer.multiply("%task", self.block)
        self.stop = writer.minimum(writer.add(self.start, self.block), self.width)
        emitter.begin_row({})
        across, sums = self.across, None
        if across is not None:
            sums = across.begin(emitter, 0, "%task")
            self._mark_rows()
        begun_with = self._begin_rows(sums) if self.add else set()
        emitter.loop("0", str(self.count), 1, self._write)
        tasks = -(-self.width // self.block)
        places: list[Argument] = []
        following: list[Launch] = []
        if across is not None and sums is not None:
            self._take_marked(across, sums)
            sums.end()
            places, following = across.finish(tasks, self.target)
        nodes = list(emitter.slots.nodes)
        written = {node, *(place for place in places if isinstance(place, Node))}
        kernel, scratch = code(self.name, writer), 0 if across is None else node.shape[0]
        launch = Launch(kernel, tasks, [*places, *nodes], scratch, set(nodes) - written, written, set())
        if self.onto is not None:
            launch.exact = begun_with - emitter.loaded.keys()
            launch.in_place = True
        return [launch, *following]

    def _begin_rows(self, sums: Partials | None) -> set[Node]:
        """All rows as they are before anything is added; returns what is read there alone, and may lie where the sum
        does.
        """
        emitter, begun = self.emitter, variable("row", self.node.shape[0]) * self.width + self.column

        def begin(row: str) -> None:
            with emitter.body({"row": row}, None):

                def one() -> None:
                    first = self._first(begun)
                    emitter.store(first, self.node, begun, VECTOR)
                    if self.across is not None and sums is not None:
                        with self.writer.when(self._marked(row, "eq")):
                            self._take(self.across, sums, first, begun)

                self._blocks(one)

        self._by_lines(self.node.shape[0], begin, sums)
        found = {n for n, places in emitter.loaded.items() if n is not self.node and places == {begun}}
        emitter.loaded.clear()
        return found

    def _first(self, begun: Affine) -> Value:
        """What an element begins with."""
        if self.onto is None:
            return self.emitter.vector.constant(0, self.node.dtype)
        return self.emitter.value(self.onto, Index.at(begun, self.onto.shape))

    def _blocks(self, body: Callable[[], None]) -> None:
        """`body` for each vector of the task's columns."""
        _blocks(self.emitter, self.width, self.start, self.stop, body)

    # ---- totals

    def _mark_rows(self) -> None:
        """A byte for each row in the task's scratch memory, which says whether an index names it."""
        writer, emitter = self.writer, self.emitter
        with writer.loop(0, self.node.shape[0]) as row:
            writer.line(f"store i8 0, ptr {writer.element('%scratch', 'i8', row)}")

        def mark(item: str) -> None:
            with emitter.body({"item": item}, None):
                writer.line(f"store i8 1, ptr {writer.element('%scratch', 'i8', self._place(item))}")

        emitter.loop("0", str(self.count), 1, mark)

    def _marked(self, row: str, compare: str) -> str:
        """Whether the mark of a row is equal ("eq") or not ("ne") to 0."""
        mark = self.writer.op(f"load i8, ptr {self.writer.element('%scratch', 'i8', row)}")
        return self.writer.op(f"icmp {compare} i8 {mark}, 0")

    def _take_marked(self, across: Across, sums: Partials) -> None:
        """Take in the rows that an index names, each once."""
        emitter, writer = self.emitter, self.writer

        def item(number: str) -> None:
            with emitter.body({"item": number}, None):
                place = self._place(number)
                where = self._element(place)

                def one() -> None:
                    self._take(across, sums, emitter.load(self.node, where, VECTOR), where)

                with writer.when(self._marked(place, "ne")):
                    writer.line(f"store i8 0, ptr {writer.element('%scratch', 'i8', place)}")
                    self._blocks(one)

        self._by_lines(self.count, item, sums)

    def _take(self, across: Across, sums: Partials, value: Value, where: Affine) -> None:
        across.take(sums, value, where, self.emitter.names[LANE], self.emitter.mask)

    def _by_lines(self, count: int, body: Callable[[str], None], sums: Partials | None) -> None:
        """`body` for all numbers below `count`; in lines that are summed by themselves first, as many as are long, so
        that less is rounded off.
        """
        if sums is None:
            self.emitter.loop("0", str(count), 1, body)
            return
        length = 1 << (count.bit_length() + 1) // 2

        def line(first: str) -> None:
            sums.begin_row()
            stop = self.writer.minimum(self.writer.add(first, length), count)
            self.emitter.loop(first, stop, 1, body)
            sums.end_row()

        self.emitter.loop("0", str(count), length, line)

    # ---- what is written

    def _place(self, item: str) -> str:
        """The row that item number `item` goes to."""
        number = variable("item", self.count)
        return self.emitter.value(self.index, Index.at(number, self.index.shape), SCALAR).ref

    def _element(self, place: str) -> Affine:
        return variable(place, max(2, self.node.shape[0])) * self.width + self.column

    def _write(self, item: str) -> None:
        emitter, a = self.emitter, self.emitter.vector
        with emitter.body({"item": item}, None):
            where = self._element(self._place(item))
            source = Index.at(variable("item", self.count) * self.width + self.column, self.rows.shape)

            def one() -> None:
                value = emitter.value(self.rows, source)
                if self.add:
                    value = a.add(emitter.load(self.node, where, VECTOR), value)
                emitter.store(value, self.node, where, VECTOR)

            self._blocks(one)


def emit_scatter(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches of a scatter_add, or of its sum with what it is added to, and of totals of it."""
    scattered, *above = [member for member, level in group.members.items() if level == FULL]
    index, rows = scattered.inputs
    node = above[0] if above else scattered
    onto = None
    if above:
        onto = node.inputs[0] if node.inputs[1] is scattered else node.inputs[1]
    across = across_of(group, lambda n: n not in group.members and in_memory(n)).get(node)
    return _WrittenRows("scatter", node, index, rows, in_memory, target, True, onto, across).launches()


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
    if not elements(index) or not elements(rows):
        return [copy]
    return [copy, *_WrittenRows("put", node, index, rows, in_memory, target, add=False).launches()]


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
