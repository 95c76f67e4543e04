"""What follows a convolution in its group, computed from what a task has just made, while it is in the cache.

That is arithmetic element by element (bias, activation, residual, rounding), and reductions over everything or of each
channel, of which a task gives partial results. A task's results lie in memory, where somebody wants them, or in its
scratch memory. They are gone through channels first: a vector of channels over all places of the task, so that its sums
stay in registers, several of each, because an addition takes some cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..compiler.groups import COLUMN, TOTAL, Group
from ..compiler.index import Affine, Index
from ..graph.node import Node
from ..graph.types import int64
from .emitter import LANE, VECTOR, Emitter, Slots, lane_variable
from .launch import Argument, Launch
from .loops import lanes_for
from .matmul_tile import Size, scalar_type
from .partials import Partials, Reduced, Spread, across_of, reduced_of
from .registers import Value
from .target import Target, abilities_of
from .text import Variable, Writer

#: places whose sums are held apart, at most: additions to one sum wait for each other
_APART = 4


@dataclass(frozen=True)
class Along:
    """The places of a task along one axis: the variable `name` is first + step * (start + i) for i < count.

    In the task's scratch memory they are `move` elements apart.
    """

    name: str
    count: int
    start: Size = 0
    step: int = 1
    first: int = 0
    move: int = 0


@dataclass(frozen=True)
class Made:
    """What a task has made: the columns `n0` … `n1` of all places `along`, where the variables `names` are given.

    `whole` tells that these are whole vectors of so many lanes. At `tile` lies what the first place would have in its
    column 0, if the results lie in scratch memory. `part` is the number of the task among those that have the same
    columns, which begin at `column`; `number` that among all.
    """

    names: dict[str, str]
    along: Sequence[Along]
    n0: str
    n1: str
    whole: int
    tile: str | None
    column: Size
    part: Size
    number: Size

    @property
    def count(self) -> int:
        """How many places there are."""
        return math.prod(axis.count for axis in self.along)


class Epilogue:
    """The members of a convolution's group but for itself. `columns` are its channels, all that a place has; `extent`
    of them lie side by side in a task.

    `domain` is the number of the element in terms of the variables that a task gives, and of the lane.
    """

    def __init__(
        self, group: Group, in_memory: Callable[[Node], bool], target: Target, columns: int, extent: int, domain: Affine
    ):  # fmt: skip
        self.convolution = next(iter(group.members))
        self.group, self.in_memory, self.target, self.domain = group, in_memory, target, domain
        reductions = [node for node in group.stored if group.members[node] in (TOTAL, COLUMN)]
        found = across_of(group, in_memory)
        #: totals of what is reduced by columns, in the order of that
        self.across = {node: found[node] for node in reductions if node in found}
        finished = [*reductions, *(total.node for across in self.across.values() for total in across.totals)]
        self.stored = [node for node in group.stored if node not in finished and node is not self.convolution]
        reduced = [reduced_of(node, group.members[node], columns) for node in reductions]
        self.columns = [one for one in reduced if one.level == COLUMN and not isinstance(one, Spread)]
        self.spreads = [one for one in reduced if isinstance(one, Spread)]
        self.totals = [one for one in reduced if one.level == TOTAL]
        self.lanes = lanes_for(target, extent, group.inner, bool(self.totals or self.across))
        #: whether a task's results lie in its scratch memory alone
        self.keeps_tile = self.convolution not in group.stored
        self.places: list[Argument] = []
        #: whether a task's columns are final, since no other has the same
        self.finishes = True
        #: what the slots hold behind the partial results
        self.nodes: list[Node] = []
        trial = self._tried()
        self.nodes, self.loaded = list(trial.slots.nodes), trial.loaded

    @property
    def reduced(self) -> list[Reduced]:
        """All reductions, in the order of their slots."""
        return [*self.columns, *self.spreads, *self.totals]

    def _tried(self) -> Emitter:
        """The emitter after it has been used for a task of one element: which nodes it asks for."""
        writer = Writer("trial", ["ptr %args", "ptr %scratch", "i64 %task"])
        variables = sorted({variable.name for variable in self.domain.variables()} - {LANE})
        made = Made(dict.fromkeys(variables, "0"), [Along("once", 1)], "0", "1", 1, "%scratch", 0, 0, 0)
        return self.emit(writer, 0, made).emitter

    def streams(self) -> list[tuple[int, Node]]:
        """What is read or written where the convolution has the same element, and its number among the slots: unlike
        what the task itself has made, it has to come from memory.
        """
        along = [node for node in self.nodes if node in self.stored or self.loaded.get(node) == {self.domain}]
        return [(len(self.places) + self.nodes.index(node), node) for node in along if node is not self.convolution]

    def finish(self, parts: int, tasks: int) -> list[Launch]:
        """Give the partial results their places, there being `tasks` tasks, of which `parts` have the same columns;
        the launches that put them together.
        """
        self.finishes = parts == 1
        launches: list[Launch] = []
        for one in self.reduced:
            across = self.across.get(one.node)
            place, finish = one.finish(tasks if one.level == TOTAL else parts, self.target, across)
            self.places.append(place)
            launches += finish
        for across in self.across.values() if self.finishes else ():  # else taken by who puts the columns together
            places, finish = across.finish(tasks, self.target)
            self.places += places
            launches += finish
        return launches

    def emit(self, writer: Writer, slot: int, made: Made) -> Seen:
        """Code for what a task has made; its arguments take the slots from `slot` on."""
        own = set(self.stored)
        slots = Slots(slot + len(self.places))
        for node in self.nodes:
            slots.of(node)

        def loadable(node: Node) -> bool:
            return node not in own and self.in_memory(node)

        abilities = abilities_of(self.target)
        emitter = Emitter(writer, self.lanes, slots, loadable, abilities, self.group.members)
        emitter.begin_row(made.names)
        _Pass(self, emitter, made, self._partials(emitter, slot, made), slot).emit()
        return Seen(self, emitter)

    def _partials(self, emitter: Emitter, slot: int, made: Made) -> dict[Reduced, str]:
        """Where the task's partial results go: of columns, that of column 0."""
        writer, found = emitter.writer, {}
        for number, one in enumerate(self.reduced):
            type_ = emitter.scalar.storage_type(one.node.dtype)
            if one.level == TOTAL:
                first: Size = made.number
            else:
                first = writer.add(writer.multiply(made.part, one.rows * one.width), made.column)
            found[one] = writer.element(writer.argument(slot + number), type_, first)
        return found


@dataclass(frozen=True)
class Seen:
    """An epilogue that has been emitted: what its slots hold, and what it reads."""

    epilogue: Epilogue
    emitter: Emitter

    @property
    def arguments(self) -> list[Argument]:
        """The contents of the slots."""
        return [*self.epilogue.places, *self.emitter.slots.nodes]

    @property
    def reads(self) -> set[Node]:
        """What is read, but for what the launch writes itself."""
        return {node for node in self.emitter.slots.nodes if node not in self.epilogue.group.stored}

    @property
    def exact(self) -> set[Node]:
        """What is read only where the same element is written, before it is written."""
        if self.epilogue.spreads:  # which go through the places a second time
            return set()
        loaded = self.emitter.loaded
        return {node for node in self.reads if loaded.get(node) == {self.epilogue.domain}}

    @property
    def writes(self) -> set[Node]:
        """What is written at once: not the reductions that other launches finish."""
        places = [place for place in self.epilogue.places if isinstance(place, Node)]
        kept = [] if self.epilogue.keeps_tile else [self.epilogue.convolution]
        return {*self.epilogue.stored, *kept, *places}


class _Pass:
    """The code for what one task has made."""

    def __init__(self, epilogue: Epilogue, emitter: Emitter, made: Made, partials: dict[Reduced, str], slot: int):
        self.epilogue, self.emitter, self.made, self.partials, self.slot = epilogue, emitter, made, partials, slot
        self.writer, self.arithmetic = emitter.writer, emitter.vector
        innermost = made.along[-1].count
        self.apart = next(n for n in range(_APART, 0, -1) if innermost % n == 0)
        #: what is added up, and of each while a line of places is gone through the sum of that line, so that less is
        #: rounded off
        self.sums: list[tuple[Reduced, Variable]] = []
        self.lines: dict[Variable, Variable] = {}

    def emit(self) -> None:
        a = self.arithmetic
        totals = [(one, one.variable(a)) for one in self.epilogue.totals]
        across = self._begin_across()
        self._vectors(lambda n, mask: self._vector(n, mask, totals, across))
        for one, total in totals:
            one.store_total(a, total, self.partials[one])
        for node, sums in across.items():
            self.epilogue.across[node].end(sums)

    def _begin_across(self) -> dict[Node, Partials]:
        """What the task sums of the columns that it finishes."""
        epilogue, found, slot = self.epilogue, {}, self.slot + len(self.epilogue.reduced)
        for node, across in epilogue.across.items() if epilogue.finishes else ():
            found[node] = across.begin(self.emitter, slot, str(self.made.number))
            slot += len(across.totals)
        return found

    def _vectors(self, body: Callable[[str, Value | None], None]) -> None:
        """`body` for the columns of the task: whole vectors, and a masked one for the rest."""
        writer, a, made = self.writer, self.arithmetic, self.made
        length = writer.subtract(made.n1, made.n0)
        whole = writer.add(made.n0, writer.op(f"and i64 {length}, {-a.lanes}"))
        self.emitter.loop(made.n0, whole, a.lanes, lambda n: body(n, None))
        if made.whole % a.lanes:
            outer, writer.lines = writer.lines, []
            left = writer.subtract(made.n1, whole)
            body(whole, a.lt(a.iota(int64), a.broadcast(Value(left, int64))))
            inner, writer.lines = writer.lines, outer
            with writer.when(writer.op(f"icmp slt i64 {whole}, {made.n1}")):
                writer.lines.extend(inner)

    def _vector(
        self, n: str, mask: Value | None, totals: list[tuple[Reduced, Variable]], across: dict[Node, Partials]
    ) -> None:
        """All places of the columns from `n` on."""
        a, epilogue, emitter = self.arithmetic, self.epilogue, self.emitter
        sums = [(one, self._apart(one)) for one in (*epilogue.columns, *epilogue.spreads)]

        def visit(number: int) -> None:
            values = [self._value(node) for node in epilogue.stored]
            for one, total in totals:
                value = self._value(one.node.inputs[0])
                one.add(a, self._line(total), value if mask is None else a.select(mask, value, one.identity(a)))
            for one, held in sums:
                one.add(a, self._line(held[number]), self._value(one.node.inputs[0]))
            for node, value in zip(epilogue.stored, values, strict=True):
                emitter.store(value, node, epilogue.domain, VECTOR)

        self.sums = [*totals, *((one, variable) for one, held in sums for variable in held)]
        if epilogue.stored or totals or sums:
            self._nest(n, mask, visit)
        for one, held in sums:
            total = self._together(one, held)
            self._write(one, 0, n, total, mask)
            if isinstance(one, Spread):
                self._spread(one, n, total, mask)
            elif one.node in across:
                channel = self.writer.add(n, self.made.column)
                epilogue.across[one.node].take(across[one.node], total, lane_variable(one.width), channel, mask)

    def _spread(self, one: Spread, n: str, total: Value, mask: Value | None) -> None:
        """The squared distances from the mean of the task's own places, and how many there are."""
        a, count = self.arithmetic, self.arithmetic.constant(self.made.count, one.node.dtype)
        mean = a.div(total, count)
        held = self._apart(one)

        def visit(number: int) -> None:
            distance = a.sub(self._value(one.node.inputs[0]), mean)
            one.add(a, self._line(held[number]), a.mul(distance, distance))

        self.sums = [(one, variable) for variable in held]
        self._nest(n, mask, visit)
        self._write(one, 1, n, self._together(one, held), mask)
        self._write(one, 2, n, count, mask)

    def _line(self, variable: Variable) -> Variable:
        return self.lines.get(variable, variable)

    def _by_line(self, body: Callable[[], None]) -> None:
        """`body`, which goes through a line of places, with sums of their own that are then added to those of all."""
        a = self.arithmetic
        self.lines = {variable: one.variable(a) for one, variable in self.sums}
        body()
        for one, variable in self.sums:
            one.add(a, variable, Value(self.lines[variable].get(), one.node.dtype))
        self.lines = {}

    def _apart(self, one: Reduced) -> list[Variable]:
        return [one.variable(self.arithmetic) for _ in range(self.apart)]

    def _together(self, one: Reduced, held: list[Variable]) -> Value:
        """The sums that were held apart as one, by halves."""
        values = [Value(variable.get(), one.node.dtype) for variable in held]
        while len(values) > 1:
            half = len(values) // 2
            pairs = zip(values[:half], values[half : 2 * half], strict=True)
            values = [*(one.combine(self.arithmetic, x, y) for x, y in pairs), *values[2 * half :]]
        return values[0]

    def _write(self, one: Reduced, row: int, n: str, value: Value, mask: Value | None) -> None:
        """Write to the columns from `n` on of row `row` of the task's partial result."""
        type_ = self.emitter.scalar.storage_type(one.node.dtype)
        place = self.writer.element(self.partials[one], type_, self.writer.add(n, row * one.width))
        if mask is None:
            self.arithmetic.store(value, place, one.node.dtype)
        else:
            self.arithmetic.masked_store(value, place, one.node.dtype, mask)

    def _value(self, node: Node) -> Value:
        return self.emitter.value(node, Index.at(self.epilogue.domain, node.shape))

    def _nest(self, n: str, mask: Value | None, visit: Callable[[int], None]) -> None:
        """`visit` for every place, which is told the number of the sums to add to."""
        writer, emitter, made = self.writer, self.emitter, self.made
        type_ = scalar_type(self.epilogue.convolution.dtype)

        def at(place: str, axis: Along, tile: str | None) -> tuple[str, str | None]:
            name = writer.add(writer.multiply(writer.add(place, axis.start), axis.step), axis.first)
            if tile is None or axis.count == 1:  # of one place alone the value may be asked for before all loops
                return name, tile
            return name, writer.element(tile, type_, writer.multiply(place, axis.move))

        def along(number: int, found: dict[str, str], tile: str | None) -> None:
            axis = made.along[number]

            def one(place: str, apart: int) -> None:
                name, here = at(place, axis, tile)
                inside = {**found, axis.name: name}
                if number + 1 < len(made.along):
                    along(number + 1, inside, here)
                    return
                with emitter.body({**inside, LANE: n, "first": n}, mask):
                    emitter.tiles = {} if here is None else {self.epilogue.convolution: here}
                    visit(apart)

            def several(place: str) -> None:
                for apart in range(step):
                    one(writer.add(place, apart), apart)

            last = number + 1 == len(made.along)
            step = self.apart if last else 1
            if axis.count == step == 1:
                one("0", 0)
            elif last and number and axis.count > step:
                self._by_line(lambda: emitter.loop("0", str(axis.count), step, several))
            else:
                emitter.loop("0", str(axis.count), step, several)

        along(0, {}, made.tile)
