"""Kernels of loop groups: elementwise chains, and rows that are reduced and used again.

The domain of a group is cut into loops at every place where a member's shape has an axis; loops that every operand runs
through in step are then made one. A group without row reductions is a nest of loops with the innermost one in vectors.
With row reductions each row is gone over in stages: a stage computes the reductions that the next one needs, and stores
what is complete. The row stays in the cache from one stage to the next. Where the last row is shorter than the others,
rows are counted by one loop and gone over by one, which ends where the row does. A part of a group that is computed a
second time goes over its rows in the loops of the whole, which its own operands might not ask for: they make the order
of additions. Totals over what rows are reduced to are taken row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from ..compiler.groups import ACROSS, JOINED, Group, elements, is_real, part_run, sources, unfilled
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import bool_, int64
from ..ops.primitive import REDUCTION
from .emitter import COMBINE, LANE, ROW, VECTOR, Emitter, Slots, identity_of, lane_variable
from .launch import Argument, Launch
from .partials import Numbers, across_of
from .registers import Value
from .target import Target, abilities_of
from .text import Writer, code

#: elements that one task covers, about: enough work to be worth handing out
TASK_ELEMENTS = 16384
#: operations of one task, about, where elements are dear: some ten microseconds
TASK_OPERATIONS = 131_072
#: operations an element from which on a value is kept from one stage of a row to the next
_DEAR = 10
#: elements of a row that are kept at most: they must not crowd the row itself out of the cache
_LONGEST_KEPT = 4096


@dataclass(frozen=True)
class Loops:
    """The sizes of the loops over rows and, within a row, over columns; the last one is done in vectors."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def operation_cost(members: Iterable[Node]) -> int:
    """Floating-point operations an element of the domain."""
    return sum(node.op.cost for node in members)


def lanes_for(target: Target, extent: int, members: Iterable[Node], adds_up: bool) -> int:
    """Elements handled at once: two registers of float32 for light work, one for heavy, no more than there are.

    Where lanes are added up it is two, whatever else is computed: in which order a sum is taken must not depend on
    what it shares a kernel with, which changes with what is computed again.
    """
    width = target.vector_bytes // 4 * (2 if adds_up or operation_cost(members) <= 60 else 1)
    return min(width, 1 << max(0, extent - 1).bit_length())


def emit_loops(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches that compute a group of kind LOOP: one, and what puts totals of rows together."""
    return _LoopKernel(group, in_memory, target).launches()


def boundaries(size: int, shapes: Iterable[tuple[int, ...]], first: Iterable[int] = ()) -> list[int]:
    """The numbers of elements after which a loop ends, inner to outer, each dividing the next: 1, …, size.

    Taken from the shapes of `size` elements in turn, as far as they fit with those before.
    """
    found = sorted({1, size, *first})
    for shape in shapes:
        product = 1
        for extent in reversed(shape):
            product *= extent
            below = max(b for b in found if b <= product)
            above = min((b for b in found if b >= product), default=size)
            if product not in found and product % below == 0 and above % product == 0:
                found = sorted([*found, product])
    return found


class _LoopKernel:
    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target):
        self.group, self.target = group, target
        self.members = group.members
        self.in_memory = in_memory
        self.stored = [n for n in group.stored if elements(n) and self.members[n] != ACROSS]
        #: totals over what rows are reduced to
        self.across = list(across_of(group, in_memory).values())
        self.totals = [total for across in self.across for total in across.totals]
        self.reductions = self._needed_reductions()
        self.stages = self._stages()
        self.stored_at = self._stored_at()
        self.kept = self._worth_keeping()
        self.flat = False

    # ---- what is to be done

    def _needed_reductions(self) -> list[Node]:
        """The group's reductions that a stored member needs, in order."""
        needed: set[Node] = set()
        stack = [*self.stored, *(total.node for total in self.totals)]
        while stack:
            node = stack.pop()
            if node not in needed and node in self.members:
                needed.add(node)
                stack.extend(s for operand in node.inputs for s in sources(operand))
        reductions = (n for n in self.members if n in needed and n.op.kind == REDUCTION)
        return [n for n in reductions if self.members[n] != ACROSS]

    def _stages(self) -> dict[Node, int]:
        """For each member the stage from which on it can be computed, for a reduction the one that computes it, which
        is there one stage after.
        """
        stages: dict[Node, int] = {}
        for node in self.members:
            stage = 0
            for operand in node.inputs:
                for source in sources(operand):
                    if source in self.members:
                        stage = max(stage, stages[source] + (source.op.kind == REDUCTION))
            stages[node] = stage
        return self._with_late_reductions(stages)

    def _with_late_reductions(self, stages: dict[Node, int]) -> dict[Node, int]:
        """The stages, with reductions that no member of the row waits for put off to the last one that stores element
        by element, where something that they are made of can be stored there because of it.
        """
        last = self._last_storing(stages)
        awaited = {source for node in self.group.inner for operand in node.inputs for source in sources(operand)}
        late = [n for n in self.reductions if n not in awaited and stages[n] < last]
        if not late:
            return stages
        before, after = self._asked_for(stages), self._asked_for(stages | dict.fromkeys(late, last))
        moved = {n for n in self.stored if self.members[n] == "full" and before[n] < last <= after[n]}
        return stages | {n: last for n in late if not moved.isdisjoint(self._operands_of(n))}

    def _last_storing(self, stages: dict[Node, int]) -> int:
        """The last stage that stores element by element."""
        return max((stages[n] for n in self.stored if self.members[n] == "full"), default=0)

    def _asked_for(self, stages: dict[Node, int]) -> dict[Node, int]:
        """For each member the first stage in which another one asks for its value; the last that stores, if none does
        before.
        """
        last = self._last_storing(stages)
        asked = dict.fromkeys(self.members, last)
        for node in reversed(self.members):
            is_early = node.op.kind == REDUCTION or (node in self.stored and asked[node] < last)
            stage = stages[node] if is_early else asked[node]
            for operand in node.inputs:
                for source in sources(operand):
                    if source in asked:
                        asked[source] = min(asked[source], stage)
        return asked

    def _operands_of(self, reduction: Node) -> set[Node]:
        """The members that a reduction is made of, element by element."""
        found: set[Node] = set()
        stack = sources(reduction.inputs[0])
        while stack:
            node = stack.pop()
            if node not in found and self.members.get(node) == "full":
                found.add(node)
                stack.extend(s for operand in node.inputs for s in sources(operand))
        return found

    def _stored_at(self) -> dict[Node, int]:
        """For each stored member the stage that stores it. What no other member asks for earlier is stored with the
        last that are stored element by element: not before the row has been read for the last time, so that it may lie
        over it.
        """
        last, asked = self._last_storing(self.stages), self._asked_for(self.stages)
        return {n: last if self.members[n] == "full" and asked[n] >= last else self.stages[n] for n in self.stored}

    def _worth_keeping(self) -> list[Node]:
        """Members that one stage computes dearly and a later one asks for again; kept for the time of a row."""
        if not self.reductions or (self.group.row or _LONGEST_KEPT + 1) > _LONGEST_KEPT:
            return []
        computed = self._computed_for_reductions()
        found: set[Node] = set()
        for node in [*self.stored, *self.reductions]:
            stage = self.stored_at.get(node, self.stages[node])
            seen: set[Node] = set()
            stack = [s for operand in node.inputs for s in sources(operand)]
            while stack:
                source = stack.pop()
                if source in seen or source not in self.members or source.op.kind == REDUCTION:
                    continue
                seen.add(source)
                is_there = self.stages[source] < stage and source in computed and source.dtype is source.dtype.compute
                if is_there and source not in self.stored and self._cost_from_memory(source) >= _DEAR:
                    found.add(source)
                else:
                    stack.extend(s for operand in source.inputs for s in sources(operand))
        return [n for n in self.members if n in found]

    def _computed_for_reductions(self) -> set[Node]:
        """The members that a reduction's own stage computes, element by element, for what is summed."""
        found: set[Node] = set()
        for reduction in self.reductions:
            stack = sources(reduction.inputs[0])
            while stack:
                node = stack.pop()
                here = self.members.get(node) == "full" and self.stages[node] == self.stages[reduction]
                if here and node not in found and node.op.kind != REDUCTION:
                    found.add(node)
                    stack.extend(s for operand in node.inputs for s in sources(operand))
        return found

    def _cost_from_memory(self, node: Node) -> int:
        """Operations to compute an element of a member anew, from what is in memory."""
        seen: set[Node] = set()
        stack = [node]
        while stack:
            member = stack.pop()
            if member not in seen and self.members.get(member) == "full":
                seen.add(member)
                stack.extend(s for operand in member.inputs for s in sources(operand))
        return operation_cost(seen)

    # ---- the loops

    def _all_loops(self) -> Loops:
        """Every loop that some member's or operand's shape asks for."""
        group = self.group
        if group.is_ragged:
            return Loops((group.rows,), (group.row or 1,))
        shapes = [n.shape for n in self.stored if self.members[n] == "full"]
        seen: set[Node] = set()
        stack = list(self.members)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                if elements(node) == group.size:
                    shapes.append(node.shape)
                stack.extend(i for i in node.inputs if not is_real(i))
        row = group.row or 1
        runs = {part_run(node) for node, level in self.members.items() if level == JOINED}
        shared = [] if group.share is None else [group.size // group.share.rows]
        found = boundaries(group.size, shapes, [row, *runs, *shared])
        sizes = [(b // a, a) for a, b in pairwise(found)]
        rows = tuple(size for size, inner in reversed(sizes) if inner >= row)
        columns = tuple(size for size, inner in reversed(sizes) if inner < row)
        return Loops(rows, columns) if group.row else Loops(rows[:-1], rows[-1:])

    def _variables(self, loops: Loops) -> list[Affine]:
        sizes = [*loops.rows, *loops.columns]
        names = [f"r{i}" for i in range(len(loops.rows))] + [f"c{i}" for i in range(len(loops.columns))]
        result = [variable(name, size) for name, size in zip(names, sizes, strict=True)]
        if loops.columns:
            result[-1] = lane_variable(sizes[-1])
        return result

    def _flat(self, loops: Loops) -> tuple[Affine, Affine]:
        """The number of the element in the domain, and of the row."""
        sizes, variables = [*loops.rows, *loops.columns], self._variables(loops)
        total, stride = Affine(), 1
        for size, var in zip(reversed(sizes), reversed(variables), strict=True):
            total, stride = total + var * stride, stride * size
        row, stride = Affine(), 1
        for size, var in zip(reversed(loops.rows), reversed(variables[: len(loops.rows)]), strict=True):
            row, stride = row + var * stride, stride * size
        return total, row

    def _merged(self, loops: Loops, touched: list[Affine]) -> Loops:
        """The loops with neighbours made one where every index runs through them in step."""
        if self.group.is_ragged:
            return loops
        variables = self._variables(loops)
        all_sizes = [*loops.rows, *loops.columns]
        mixed = set().union(*(index.quotients() for index in touched)) if touched else set()

        def in_step(outer: int, inner: int, size: int) -> bool:
            a, b = variables[outer].terms, variables[inner].terms
            if self.group.share is not None and math.prod(all_sizes[: outer + 1]) == self.group.share.rows:
                return False
            if not a or not b:
                return True
            if a[0][0] in mixed or b[0][0] in mixed:
                return False
            return all(i.factor(a[0][0]) == i.factor(b[0][0]) * size for i in touched)

        def merge(places: list[int], sizes: list[int]) -> list[int]:
            result: list[tuple[int, int]] = []
            for place, size in zip(places, sizes, strict=True):
                if result and in_step(result[-1][0], place, size):
                    result[-1] = (place, result[-1][1] * size)
                else:
                    result.append((place, size))
            return [size for _, size in result]

        count = len(loops.rows)
        if self.group.row is None:
            merged = merge(list(range(len(variables))), [*loops.rows, *loops.columns])
            return Loops(tuple(merged[:-1]), tuple(merged[-1:]))
        rows = merge(list(range(count)), list(loops.rows))
        columns = merge(list(range(count, len(variables))), list(loops.columns))
        return Loops(tuple(rows), tuple(columns))

    # ---- emission

    def launches(self) -> list[Launch]:
        loops = self._all_loops()
        trial = self._emit(loops)
        loops = self._merged(loops, trial.touched)
        if self.group.columns:
            loops = Loops(loops.rows, self.group.columns)
        self.flat = self.group.row is None and not loops.rows
        emitter = self._emit(loops)
        nodes = list(emitter.slots.nodes)
        places: list[Argument] = []
        following: list[Launch] = []
        for across in self.across:
            found, more = across.finish(self.tasks, self.target)
            places += found
            following += more
        written = {*self.stored, *(place for place in places if isinstance(place, Node))}
        launch = Launch(
            code("loops", emitter.writer),
            self.tasks,
            [*([self.group.size] if self.flat else []), *places, *nodes],
            0,
            {n for n in nodes if n not in written},
            written,
            self._exact(emitter),
            in_place=True,
            columns=loops.columns if self.reductions else (),
        )
        return [launch, *following]

    def _exact(self, emitter: Emitter) -> set[Node]:
        """Inputs that are read only where the same element is written, and not after it.

        What is stored element by element in the last stage of a row is; values a row have no element of their own. The
        parts of a concatenation are written elsewhere.
        """
        if JOINED in (self.members[n] for n in self.stored):
            return set()
        last = max(self.stages[n] for n in [*self.stored, *self.reductions])
        if any(self.stored_at[n] < last and self.members[n] == "full" for n in self.stored):
            return set()
        return {n for n, places in emitter.loaded.items() if places == {self.domain}}

    def _emit(self, loops: Loops) -> Emitter:
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        columns = loops.columns[-1] if loops.columns else 1
        lanes = lanes_for(self.target, columns, self.group.inner, any(n.op.name == "sum" for n in self.reductions))
        self.complete: set[Node] = set()
        slots = Slots(1 if self.flat else len(self.totals))
        emitter = Emitter(writer, lanes, slots, self._loadable, abilities_of(self.target), self.members)
        self.domain, row = self._flat(loops)
        for node in self.stored:
            emitter.pointer(node)
        if len(loops.columns) == 1:
            self._keep_rows(emitter, lanes)
        if self.flat:
            self._emit_flat(emitter)
        else:
            self._emit_rows(emitter, loops, row)
        return emitter

    def _keep_rows(self, emitter: Emitter, lanes: int) -> None:
        """Stack memory for a row of each kept member, in whole vectors."""
        length = -(-(self.group.row or 1) // lanes) * lanes
        for node in self.kept:
            pointer = emitter.writer.allocate(emitter.scalar.llvm_type(node.dtype), length)
            emitter.kept[node] = (Index.at(self.domain, node.shape).axes, pointer)

    def _loadable(self, node: Node) -> bool:
        """Whether the node's value at this point is in memory; of the group's own, what earlier stages stored."""
        return node in self.complete if node in self.members else self.in_memory(node)

    def _store_all(self, emitter: Emitter, nodes: list[Node]) -> None:
        """Compute everything before anything is written: what is written may lie over what is read."""
        places: list[tuple[Node, Node, Affine]] = []  # what is written where, and in whose memory
        for node in nodes:
            places += self._parts(node) if self.members[node] == JOINED else [(node, node, self.domain)]
        values = [emitter.value(part, Index.at(self.domain, part.shape)) for part, _, _ in places]
        for (_, node, place), value in zip(places, values, strict=True):
            emitter.store(value, node, place, VECTOR)

    def _parts(self, node: Node) -> list[tuple[Node, Node, Affine]]:
        """The parts of a concatenation and their places in it."""
        found, start = [], 0
        for part in node.inputs:
            index = Index.at(self.domain, part.shape)
            axes = [axis + start if a == node["axis"] else axis for a, axis in enumerate(index.axes)]
            found.append((part, node, Index(node.shape, tuple(axes)).flat()))
            start += part.shape[node["axis"]]
        return found

    def _task_elements(self) -> int:
        """Elements that one task covers, a power of 2."""
        cost = operation_cost(self.group.inner) + 2 * len(self.stored)
        return min(TASK_ELEMENTS, 1 << (TASK_OPERATIONS // max(cost, 1)).bit_length() - 1)

    def _emit_flat(self, emitter: Emitter) -> None:
        """One loop over all elements, their number an argument: equal work on other sizes is the same kernel."""
        writer, lanes = emitter.writer, emitter.vector.lanes
        chunk = max(lanes, self._task_elements())
        self.tasks = -(-self.group.size // chunk)
        count = writer.argument(0, "i64")
        start = writer.op(f"mul i64 %task, {chunk}")
        stop = writer.minimum(writer.op(f"add i64 {start}, {chunk}"), count)
        emitter.begin_row({})
        whole = self._whole(emitter, start, stop)

        def body(i: str, mask: Value | None) -> None:
            with emitter.body({LANE: i, "first": i}, mask):
                self._store_all(emitter, self.stored)

        emitter.loop(start, whole, lanes, lambda i: body(i, None))
        if lanes > 1:
            self._rest(emitter, whole, stop, body)

    def _whole(self, emitter: Emitter, start: str, stop: str) -> str:
        """Where the last full vector from `start` ends."""
        writer, lanes = emitter.writer, emitter.vector.lanes
        length = writer.op(f"sub i64 {stop}, {start}")
        return writer.op(f"add i64 {start}, {writer.op(f'and i64 {length}, {-lanes}')}")

    def _rest(self, emitter: Emitter, start: str, stop: str, body: Callable[[str, Value | None], None]) -> None:
        """The last elements, fewer than a vector, by a masked one."""
        writer, a = emitter.writer, emitter.vector
        outer, writer.lines = writer.lines, []
        left = writer.op(f"sub i64 {stop}, {start}")
        mask = a.lt(a.iota(int64), a.broadcast(Value(left, int64)))
        body(start, mask)
        inner, writer.lines = writer.lines, outer
        with writer.when(writer.op(f"icmp slt i64 {start}, {stop}")):
            writer.lines.extend(inner)

    def _emit_rows(self, emitter: Emitter, loops: Loops, row: Affine) -> None:
        writer = emitter.writer
        rows = math.prod(loops.rows)
        if self.group.share is not None:
            each = self.group.share.each * (rows // self.group.share.rows)
        else:
            each = max(1, self._task_elements() // max(1, math.prod(loops.columns)))
        self.tasks = -(-rows // each)
        first = writer.op(f"mul i64 %task, {each}")
        last = writer.minimum(writer.op(f"add i64 {first}, {each}"), str(rows))
        numbers = Numbers(emitter, self.totals)
        with numbers.lines(first, last) as number:
            emitter.begin_row(self._decode(writer, loops, number))
            self.complete = set()
            emitter.written = set()
            for stage in range(max(self.stages[n] for n in [*self.stored, *self.reductions]) + 1):
                self._emit_stage(emitter, loops, row, stage)
            numbers.take(row)
        numbers.end()

    def _decode(self, writer: Writer, loops: Loops, number: str) -> dict[str, str]:
        """The row variables of row `number`."""
        names = {}
        for place in reversed(range(len(loops.rows))):
            if place == 0:
                names["r0"] = number
            else:
                number, names[f"r{place}"] = writer.divide(number, loops.rows[place])
        return names

    def _emit_stage(self, emitter: Emitter, loops: Loops, row: Affine, stage: int) -> None:
        here = [n for n in self.stored if self.stored_at[n] == stage]
        rows = [n for n in here if self.members[n] == "row"]
        stores = [n for n in here if self.members[n] != "row"]
        reductions = [n for n in self.reductions if self.stages[n] == stage]
        self._store_rows(emitter, [n for n in rows if n.op.kind != REDUCTION], row)
        if stores or reductions:
            self._emit_columns(emitter, loops, stores, reductions)
        self._store_rows(emitter, [n for n in rows if n.op.kind == REDUCTION], row)
        self.complete.update(stores)
        emitter.written.update(n for n in self.kept if self.stages[n] == stage)

    def _store_rows(self, emitter: Emitter, nodes: list[Node], row: Affine) -> None:
        for node in nodes:
            emitter.store(emitter.value(node, Index.at(row, node.shape), ROW), node, row, ROW)

    def _emit_columns(self, emitter: Emitter, loops: Loops, stores: list[Node], reductions: list[Node]) -> None:
        """One pass over the columns of a row."""
        writer, a = emitter.writer, emitter.vector
        totals = []
        for node in reductions:
            dtype = node.dtype
            start = a.constant(identity_of(node.op.name, dtype), dtype)
            totals.append((node, start, writer.variable(a.llvm_type(dtype), start.ref)))

        def body(i: str, mask: Value | None) -> None:
            with emitter.body({LANE: i, "first": i}, mask):
                # first, because what is stored may lie over what is summed
                for node, start, total in totals:
                    operand = unfilled(node)
                    value = emitter.value(operand, Index.at(self.domain, operand.shape))
                    if mask is not None:
                        value = a.select(mask, value, start)
                    combined = getattr(a, COMBINE[node.op.name])(Value(total.get(), node.dtype), value)
                    total.set(combined.ref)
                self._store_all(emitter, stores)

        if self.group.is_ragged:
            self._ragged(emitter, body)
        else:
            self._nest(emitter, loops, body)
        for node, _, total in totals:
            of_row = a.reduce(Value(total.get(), node.dtype), COMBINE[node.op.name])
            emitter.row_values[node] = self._with_filling(emitter, node, of_row)

    def _with_filling(self, emitter: Emitter, node: Node, of_row: Value) -> Value:
        """A row's result with the zeros that fill up the last row."""
        if node.op.name == "sum" or not self.group.is_ragged:
            return of_row
        a, last = emitter.scalar, emitter.writer.op(f"icmp eq i64 {emitter.names['r0']}, {self.group.rows - 1}")
        filled = getattr(a, COMBINE[node.op.name])(of_row, a.constant(0, node.dtype))
        return a.select(Value(last, bool_), filled, of_row)

    def _ragged(self, emitter: Emitter, body: Callable[[str, Value | None], None]) -> None:
        """One pass over the columns of a row, of which the last row has fewer."""
        writer, lanes, row = emitter.writer, emitter.vector.lanes, self.group.row or 1
        left = writer.subtract(self.group.size, writer.multiply(emitter.names["r0"], row))
        stop = writer.minimum(left, row)
        whole = self._whole(emitter, "0", stop)
        emitter.loop("0", whole, lanes, lambda i: body(i, None))
        if row % lanes or self.group.size % lanes:
            self._rest(emitter, whole, stop, body)

    def _nest(self, emitter: Emitter, loops: Loops, body: Callable[[str, Value | None], None]) -> None:
        a, lanes = emitter.vector, emitter.vector.lanes
        columns = loops.columns or (1,)
        extent = columns[-1]
        whole = extent - extent % lanes

        def innermost() -> None:
            if whole:
                emitter.loop("0", str(whole), lanes, lambda i: body(i, None))
            if extent % lanes:
                mask = a.lt(a.iota(int64), a.constant(extent % lanes, int64))
                body(str(whole), mask)

        def outer(place: int) -> None:
            if place == len(columns) - 1:
                innermost()
                return

            def inside(i: str) -> None:
                with emitter.body({f"c{place}": i}, None):
                    outer(place + 1)

            emitter.loop("0", str(columns[place]), 1, inside)

        outer(0)
