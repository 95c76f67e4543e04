"""Reductions of what a kernel computes on its way: partial results at places of their own, put together afterwards.

Each part of the kernel's work (a tile of a matrix product) writes what it has reduced to its own place in a workspace.
A launch of its own then combines the parts, always in the same order, so the bits do not depend on who computed which
part. Where the work has one part alone, the result is written at once.

Totals of what is reduced by columns are taken where the columns are finished (`Across`), by whoever does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..compiler.across import totals_across
from ..compiler.groups import COLUMN, TOTAL, Group
from ..compiler.index import Affine, Index
from ..graph.node import Node
from ..graph.types import int64
from .arithmetic import LLVMArithmetic
from .emitter import COMBINE, LANE, ROW, Emitter, Slots, identity_of, lane_variable
from .launch import Argument, Launch, Workspace
from .registers import Value
from .target import Target, abilities_of
from .text import Variable, Writer, code

#: so many parts' sums are added up by themselves before they are added to the total, so that less is rounded off
_TOGETHER = 32
#: partial results that one task puts together, about: few launches of one task are worth more than many tasks
_TASK = 16384


@dataclass(frozen=True)
class Reduced:
    """A reduction over all elements that a kernel computes (TOTAL), or over those of each of `width` columns."""

    node: Node
    level: str
    width: int

    @property
    def operation(self) -> str:
        """The reduction that is done while elements are gone through."""
        return self.node.op.name

    @property
    def rows(self) -> int:
        """How many numbers a partial result has, of each column."""
        return 1

    def identity(self, arithmetic: LLVMArithmetic) -> Value:
        """What leaves a partial result as it is."""
        return arithmetic.constant(identity_of(self.operation, self.node.dtype), self.node.dtype)

    def combine(self, arithmetic: LLVMArithmetic, x: Value, y: Value) -> Value:
        """Two partial results put together."""
        return getattr(arithmetic, COMBINE[self.operation])(x, y)

    def variable(self, arithmetic: LLVMArithmetic) -> Variable:
        """A partial result in registers, of nothing yet."""
        type_ = arithmetic.llvm_type(self.node.dtype)
        return arithmetic.writer.variable(type_, self.identity(arithmetic).ref)

    def add(self, arithmetic: LLVMArithmetic, variable: Variable, value: Value) -> None:
        """Take in all lanes of `value`."""
        variable.set(self.combine(arithmetic, Value(variable.get(), self.node.dtype), value).ref)

    def store_total(self, arithmetic: LLVMArithmetic, variable: Variable, place: str) -> None:
        """Write the lanes of a partial result, combined, to `place`."""
        total = arithmetic.reduce(Value(variable.get(), self.node.dtype), COMBINE[self.operation])
        LLVMArithmetic(arithmetic.writer, 1).store(total, place, self.node.dtype)

    def finish(self, parts: int, target: Target, across: Across | None = None) -> tuple[Argument, list[Launch]]:
        """Where `parts` partial results are to be written, and the launches that put them together, and take totals
        of what they finish; one part finishes all by itself.

        Those of columns lie as [parts, width], totals as [parts].
        """
        if parts == 1:
            return self.node, []
        workspace = Workspace(parts * self.width * self.node.dtype.itemsize)
        if self.level == COLUMN:
            return workspace, _finish_columns(self, parts, workspace, target, across)
        return workspace, [_finish_total(self, parts, workspace, target)]


@dataclass(frozen=True)
class Spread(Reduced):
    """The sum of squared distances from the mean, of each column.

    A partial result is the sum of a part's elements, their squared distances from the part's own mean, and their
    number. Each part is gone through twice, while it is in the cache, so that nothing cancels. They are put together
    as in Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979),
    all at once: the distances of the parts' means from the mean of all are added, as often as a part has elements.
    """

    @property
    def operation(self) -> str:
        """See `Reduced`."""
        return "sum"

    @property
    def rows(self) -> int:
        """See `Reduced`."""
        return 3

    def finish(self, parts: int, target: Target, across: Across | None = None) -> tuple[Argument, list[Launch]]:
        """See `Reduced`; partial results lie as [parts, 3, width], however few there are."""
        workspace = Workspace(parts * self.rows * self.width * self.node.dtype.itemsize)
        return workspace, [_finish_spread(self, parts, workspace, target)]


def reduced_of(node: Node, level: str, columns: int) -> Reduced:
    """The member of a group that is a reduction of what its kernel computes in so many columns."""
    kind = Spread if node.op.name == "spread" else Reduced
    return kind(node, level, columns if level == COLUMN else 1)


class Partials:
    """The partial results of one part of a kernel's work, at `places`, as the part is gone through row by row.

    Columns are added up in memory, in the cache; totals in registers, the sum of a row by itself first, so that less
    is rounded off.
    """

    def __init__(self, emitter: Emitter, reduced: Sequence[Reduced], places: Sequence[str]):
        self.emitter, self.arithmetic = emitter, emitter.vector
        pairs = list(zip(reduced, places, strict=True))
        self.columns = [(one, place) for one, place in pairs if one.level == COLUMN]
        self.totals = [(one, place, one.variable(self.arithmetic)) for one, place in pairs if one.level == TOTAL]
        self._of_row: list[Variable] = [total for _, _, total in self.totals]

    def _column(self, reduced: Reduced, place: str, n: str) -> str:
        return self.emitter.writer.element(place, self.emitter.scalar.storage_type(reduced.node.dtype), n)

    def clear(self, n: str, mask: Value | None) -> None:
        """Begin with nothing in the columns from `n` on, of those in `mask`."""
        for reduced, place in self.columns:
            self._store(reduced, reduced.identity(self.arithmetic), self._column(reduced, place, n), mask)

    def _store(self, reduced: Reduced, value: Value, place: str, mask: Value | None) -> None:
        if mask is None:
            self.arithmetic.store(value, place, reduced.node.dtype)
        else:
            self.arithmetic.masked_store(value, place, reduced.node.dtype, mask)

    def begin_row(self) -> None:
        """Before the columns of a row."""
        self._of_row = [
            reduced.variable(self.arithmetic) if reduced.operation == "sum" else total
            for reduced, _, total in self.totals
        ]

    def take(self, domain: Affine, n: str) -> None:
        """Take in a vector of elements, those of the columns from `n` on, inside the emitter's body for them."""
        a, mask = self.arithmetic, self.emitter.mask
        for (reduced, _, _), total in zip(self.totals, self._of_row, strict=True):
            value = self._value(reduced, domain)
            reduced.add(a, total, value if mask is None else a.select(mask, value, reduced.identity(a)))
        for reduced, place in self.columns:
            at, dtype = self._column(reduced, place, n), reduced.node.dtype
            held = a.load(at, dtype) if mask is None else a.masked_load(at, dtype, mask, reduced.identity(a))
            self._store(reduced, reduced.combine(a, held, self._value(reduced, domain)), at, mask)

    def _value(self, reduced: Reduced, domain: Affine) -> Value:
        operand = reduced.node.inputs[0]
        return self.emitter.value(operand, Index.at(domain, operand.shape))

    def end_row(self) -> None:
        """After the columns of a row."""
        for (reduced, _, total), of_row in zip(self.totals, self._of_row, strict=True):
            if of_row is not total:
                reduced.add(self.arithmetic, total, Value(of_row.get(), reduced.node.dtype))

    def end(self) -> None:
        """After all rows."""
        for reduced, place, total in self.totals:
            reduced.store_total(self.arithmetic, total, place)


@dataclass(frozen=True)
class Across:
    """Totals of elementwise functions of `base`, which tasks finish piece by piece: each gives partial results."""

    base: Node
    totals: Sequence[Reduced]
    in_memory: Callable[[Node], bool]

    def finish(self, parts: int, target: Target) -> tuple[list[Argument], list[Launch]]:
        """Where the partial results of `parts` tasks are to be written, and the launches that put them together."""
        found = [total.finish(parts, target) for total in self.totals]
        return [place for place, _ in found], [launch for _, launches in found for launch in launches]

    def begin(self, emitter: Emitter, slot: int, part: str) -> Partials:
        """The partial results of part number `part`, of nothing yet; their places are in the slots from `slot` on."""
        writer, places = emitter.writer, []
        for number, total in enumerate(self.totals):
            type_ = emitter.scalar.storage_type(total.node.dtype)
            places.append(writer.element(writer.argument(slot + number), type_, part))
        sums = Partials(emitter, self.totals, places)
        sums.begin_row()
        return sums

    def take(self, sums: Partials, value: Value, domain: Affine, n: str, mask: Value | None) -> None:
        """Take in a finished vector, the elements `domain` of the base, from column `n` on."""
        emitter = sums.emitter
        with emitter.body({LANE: n, "first": n}, mask):
            emitter.registers = {self.base: value}
            sums.take(domain, n)
            emitter.registers = {}

    def end(self, sums: Partials) -> None:
        """After all that the part has finished, which has been summed as one row."""
        sums.end_row()
        sums.end()


class Numbers:
    """Totals over what rows are reduced to, a number a row: the partial results of one task, whose places are in the
    first slots.
    """

    def __init__(self, emitter: Emitter, totals: Sequence[Reduced]):
        self.emitter, self.totals = emitter, totals
        self._sums = [total.variable(emitter.scalar) for total in totals]
        self._of_line = self._sums

    @contextmanager
    def lines(self, first: str, last: str) -> Iterator[str]:
        """A loop over rows, in lines that are summed by themselves first, so that less is rounded off."""
        writer, a = self.emitter.writer, self.emitter.scalar
        if not self.totals:
            with writer.loop(first, last) as row:
                yield row
            return
        with writer.loop(first, last, _TOGETHER) as line:
            self._of_line = [total.variable(a) for total in self.totals]
            with writer.loop(line, writer.minimum(writer.add(line, _TOGETHER), last)) as row:
                yield row
            for total, own, of_all in zip(self.totals, self._of_line, self._sums, strict=True):
                total.add(a, of_all, Value(own.get(), total.node.dtype))

    def take(self, row: Affine) -> None:
        """Take in the numbers of row number `row`, which the emitter stands in."""
        for total, own in zip(self.totals, self._of_line, strict=True):
            operand = total.node.inputs[0]
            total.add(self.emitter.scalar, own, self.emitter.value(operand, Index.at(row, operand.shape), ROW))

    def end(self) -> None:
        """After all rows."""
        for slot, (total, of_all) in enumerate(zip(self.totals, self._sums, strict=True)):
            writer, dtype = self.emitter.writer, total.node.dtype
            place = writer.element(writer.argument(slot), self.emitter.scalar.storage_type(dtype), "%task")
            self.emitter.scalar.store(Value(of_all.get(), dtype), place, dtype)


def across_of(group: Group, in_memory: Callable[[Node], bool]) -> dict[Node, Across]:
    """The totals that a group's kernel takes of what it finishes, by what that is."""
    found = totals_across(group).items()
    return {base: Across(base, [Reduced(node, TOTAL, 1) for node in nodes], in_memory) for base, nodes in found}


@dataclass(frozen=True)
class _Finish:
    """A launch that puts partial results together, under construction: its kernel knows no sizes, so few are made."""

    reduced: Reduced
    emitter: Emitter

    @classmethod
    def begin(
        cls, reduced: Reduced, target: Target, slots: int = 0, in_memory: Callable[[Node], bool] = lambda _: False
    ) -> _Finish:
        """Its kernel reads what is `in_memory` by way of the slots from number `slots` on."""
        writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        emitter = Emitter(writer, target.vector_bytes // 4, Slots(slots), in_memory, abilities_of(target))
        emitter.begin_row({})
        return cls(reduced, emitter)

    @property
    def arithmetic(self) -> LLVMArithmetic:
        """What works on vectors."""
        return self.emitter.vector

    def place(self, pointer: str, number: str) -> str:
        """The address of result number `number` of those at `pointer`."""
        scalar = LLVMArithmetic(self.arithmetic.writer, 1)
        return scalar.writer.element(pointer, scalar.storage_type(self.reduced.node.dtype), number)

    def mask(self, left: str) -> Value:
        """The first `left` lanes."""
        a = self.arithmetic
        return a.lt(a.iota(int64), a.broadcast(Value(left, int64)))

    def load(self, place: str, mask: Value) -> Value:
        """Partial results in memory, and in lanes outside `mask` those of nothing."""
        a, reduced = self.arithmetic, self.reduced
        return a.masked_load(place, reduced.node.dtype, mask, reduced.identity(a))

    def take(self, total: Variable, place: str, mask: Value) -> None:
        """Take partial results in memory into `total`."""
        self.reduced.add(self.arithmetic, total, self.load(place, mask))

    def launch(
        self, name: str, tasks: int, numbers: list[int], workspace: Workspace, across: Sequence[Argument] = ()
    ) -> Launch:
        """The launch; `across` are the places of what totals the tasks give of what they finish."""
        node, read = self.reduced.node, list(self.emitter.slots.nodes)
        arguments: list[Argument] = [*numbers, workspace, node, *across, *read]
        work = workspace.nbytes // node.dtype.itemsize
        writes = {node, *(place for place in across if isinstance(place, Node))}
        return Launch(code(name, self.arithmetic.writer), tasks, arguments, 0, set(read), writes, set(), work)


def _finish_total(reduced: Reduced, parts: int, workspace: Workspace, target: Target) -> Launch:
    """The total of `parts` numbers, in vectors."""
    finish = _Finish.begin(reduced, target)
    a, writer = finish.arithmetic, finish.arithmetic.writer
    count, partials, result = writer.argument(0, "i64"), writer.argument(1), writer.argument(2)
    total = reduced.variable(a)
    with writer.loop(0, count, a.lanes) as first:
        finish.take(total, finish.place(partials, first), finish.mask(writer.subtract(count, first)))
    reduced.store_total(a, total, result)
    return finish.launch("total", 1, [parts], workspace)


def _finish_columns(
    reduced: Reduced, parts: int, workspace: Workspace, target: Target, across: Across | None
) -> list[Launch]:
    """The totals of the columns of [parts, width], some vectors of columns a task, and what is to be taken of them."""
    slots = 5 + (0 if across is None else len(across.totals))
    finish = _Finish.begin(reduced, target, slots, (lambda _: False) if across is None else across.in_memory)
    a, writer, emitter = finish.arithmetic, finish.arithmetic.writer, finish.emitter
    count, width, each = (writer.argument(slot, "i64") for slot in range(3))
    partials, result = writer.argument(3), writer.argument(4)
    begin = writer.multiply("%task", each)
    end = writer.minimum(writer.add(begin, each), width)
    sums = None if across is None else across.begin(emitter, 5, "%task")

    def vector(n: str) -> None:
        mask = finish.mask(writer.subtract(width, n))
        total = _column_totals(finish, finish.place(partials, n), count, width, mask)
        a.masked_store(total, finish.place(result, n), reduced.node.dtype, mask)
        if across is not None and sums is not None:
            across.take(sums, total, lane_variable(reduced.width), n, mask)

    emitter.loop(begin, end, a.lanes, vector)
    vectors = -(-reduced.width // a.lanes)
    taken = max(1, _TASK // (parts * a.lanes))
    tasks = -(-vectors // taken)
    numbers = [parts, reduced.width, taken * a.lanes]
    if across is None or sums is None:
        return [finish.launch("column_totals", tasks, numbers, workspace)]
    across.end(sums)
    places, launches = across.finish(tasks, target)
    return [finish.launch("column_totals", tasks, numbers, workspace, places), *launches]


def _column_totals(finish: _Finish, partials: str, count: str, width: str, mask: Value) -> Value:
    """The totals of a vector of columns, whose `count` partial results begin at `partials`."""
    a, writer, reduced = finish.arithmetic, finish.arithmetic.writer, finish.reduced
    total = reduced.variable(a)
    with writer.loop(0, count, _TOGETHER) as first:
        some = reduced.variable(a)
        with writer.loop(first, writer.minimum(writer.add(first, _TOGETHER), count)) as part:
            finish.take(some, finish.place(partials, writer.multiply(part, width)), mask)
        reduced.add(a, total, Value(some.get(), reduced.node.dtype))
    return Value(total.get(), reduced.node.dtype)


def _finish_spread(reduced: Spread, parts: int, workspace: Workspace, target: Target) -> Launch:
    """The squared distances of `parts` parts put together, a vector of columns a task."""
    finish, dtype = _Finish.begin(reduced, target), reduced.node.dtype
    a, writer = finish.arithmetic, finish.arithmetic.writer
    many, width = writer.argument(0, "i64"), writer.argument(1, "i64")
    start = writer.multiply("%task", a.lanes)
    partials, result = (finish.place(writer.argument(slot), start) for slot in (2, 3))
    mask = finish.mask(writer.subtract(width, start))
    total, count, squares = (reduced.variable(a) for _ in range(3))

    def rows(part: str) -> list[str]:
        first = writer.multiply(part, reduced.rows)
        return [finish.place(partials, writer.multiply(writer.add(first, row), width)) for row in range(reduced.rows)]

    with writer.loop(0, many, _TOGETHER) as begin:
        some = reduced.variable(a)
        with writer.loop(begin, writer.minimum(writer.add(begin, _TOGETHER), many)) as part:
            first, _, third = rows(part)
            finish.take(some, first, mask)
            finish.take(count, third, mask)
        reduced.add(a, total, Value(some.get(), dtype))
    mean = a.div(Value(total.get(), dtype), Value(count.get(), dtype))
    with writer.loop(0, many) as part:
        own, distances, counts = (finish.load(place, mask) for place in rows(part))
        apart = a.sub(a.div(own, counts), mean)
        reduced.add(a, squares, a.add(distances, a.mul(counts, a.mul(apart, apart))))
    a.masked_store(Value(squares.get(), dtype), result, dtype, mask)
    return finish.launch("spreads", -(-reduced.width // a.lanes), [parts, reduced.width], workspace)
