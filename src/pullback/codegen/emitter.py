"""Emit the value of a node at an index: the one way from graph nodes to instructions.

`Emitter.value` pulls: it asks for a node's element at an index, which asks for the operands' elements at the indices
that follow, down to loads. Code lands at one of three levels: ROW, once for each row of the domain, before the loops
over columns; SCALAR, inside those loops but the same for every lane; VECTOR, one value a lane. Whatever does not depend
on the lane, or on the column, is emitted at the outer level and repeated. What depends on nothing that the kernel
itself computes, as an optimizer's numbers do, is emitted once for all rows, in the function's prologue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from ..compiler.index import Affine, Guard, Index, Quotient, Variable, follow, variable
from ..graph.node import Node
from ..graph.types import DType, bool_, int64
from ..ops.primitive import ELEMENTWISE, REDUCTION
from .arithmetic import LLVMArithmetic
from .registers import Value
from .target import Abilities
from .text import Writer

ROW, SCALAR, VECTOR = 0, 1, 2

#: the loop variable that runs over the lanes of a vector
LANE = "lane"
#: the operation that each reduction does again and again
COMBINE = {"sum": "add", "max": "maximum", "min": "minimum"}


class Slots:
    """The arguments of a kernel: which node's memory each slot holds."""

    def __init__(self, base: int = 0):
        self.base = base
        self.nodes: dict[Node, int] = {}

    def of(self, node: Node) -> int:
        """The slot of `node`, taken if it has none yet."""
        return self.nodes.setdefault(node, self.base + len(self.nodes))


class Emitter:
    """Emits values into `writer`, which must be at the row level when it is made.

    `in_memory(node)` tells whether to load a node; `members` those that a kernel loads which it
    has stored itself; `names` gives the SSA names of loop variables; the variable LANE,
    where it occurs, counts from its name's value on through the lanes.
    """

    def __init__(
        self,
        writer: Writer,
        lanes: int,
        slots: Slots,
        in_memory: Callable[[Node], bool],
        abilities: Abilities,
        members: Container[Node] = (),
    ):
        self.writer, self.slots, self.in_memory, self.members = writer, slots, in_memory, members
        self.scalar = LLVMArithmetic(writer, 1, abilities)
        self.vector = LLVMArithmetic(writer, lanes, abilities)
        self.names: dict[str, str] = {}
        self.row_names: set[str] = set()
        #: which lanes are inside the domain, where not all are
        self.mask: Value | None = None
        #: results of the group's own row reductions
        self.row_values: dict[Node, Value] = {}
        #: nodes of which the element for each lane is in a register
        self.registers: dict[Node, Value] = {}
        #: nodes whose values lie in a tile: where the present row of it has its column 0
        self.tiles: dict[Node, str] = {}
        #: members whose row is kept on the stack: at which index, and where; `written` are those that are there already
        self.kept: dict[Node, tuple[tuple[Affine, ...], str]] = {}
        self.written: set[Node] = set()
        #: every index that a kernel computed, for deciding which loops can be one
        self.touched: list[Affine] = []
        #: the elements at which each node was read
        self.loaded: dict[Node, set[Affine]] = {}
        self._row_lines = writer.lines
        self._memos: tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]] = ({}, {}, {})
        self._prologue: dict[Any, Any] = {}
        self._given: dict[Node, bool] = {}
        self._pointers: dict[Node, str] = {}

    # ---- where code lands

    def begin_row(self, names: dict[str, str]) -> None:
        """A new row: `names` are its variables. The writer's present position becomes the row level."""
        self.names = dict(names)
        self.row_names = set(names)
        self.row_values = {}
        self._row_lines = self.writer.lines
        self._memos = ({}, {}, {})

    @contextmanager
    def body(self, names: dict[str, str], mask: Value | None) -> Iterator[None]:
        """Inside, `names` are further variables, and `mask` says which lanes count."""
        before = self.names, self.mask, self._memos
        self.names, self.mask = {**self.names, **names}, mask
        self._memos = (self._memos[ROW], {}, {})
        yield
        self.names, self.mask, self._memos = before

    def _arithmetic(self, level: int) -> LLVMArithmetic:
        return self.vector if level == VECTOR else self.scalar

    @contextmanager
    def _at(self, level: int) -> Iterator[None]:
        """Instructions go to the row's lines while at the row level."""
        lines = self.writer.lines
        if level == ROW:
            self.writer.lines = self._row_lines
        yield
        self.writer.lines = lines

    def _level_of(self, index: Affine) -> int:
        level = ROW
        for var in index.variables():
            if var.vector or var.name == LANE:
                return VECTOR
            if var.name not in self.row_names:
                level = SCALAR
        return level

    # ---- indices as numbers

    def number(self, index: Affine, level: int) -> str:
        """The SSA name of an index that no lane differs in."""
        key = ("number", index)
        if self._level_of(index) == ROW:
            level = ROW
        memo = self._memos[level]
        if key not in memo:
            with self._at(level):
                memo[key] = self._number(index, level)
        return memo[key]

    def _number(self, index: Affine, level: int) -> str:
        total = str(index.constant) if index.constant or not index.terms else ""
        for atom, factor in index.terms:
            name = self._atom(atom, level)
            term = name if factor == 1 else self.writer.op(f"mul i64 {name}, {factor}")
            total = self.writer.op(f"add i64 {total}, {term}") if total else term
        return total

    def _atom(self, atom: Variable | Quotient, level: int) -> str:
        if isinstance(atom, Variable):
            return self.names.get(atom.name, atom.name)
        inner = self.number(atom.of, level)
        return self.writer.op(f"{'srem' if atom.remainder else 'sdiv'} i64 {inner}, {atom.by}")

    def _lanes(self, index: Affine) -> Value:
        """An index that lanes differ in, as a vector of int64."""
        key = ("lanes", index)
        memo = self._memos[VECTOR]
        if key in memo:
            return memo[key]
        a = self.vector
        flat = Affine(
            tuple((x, f) for x, f in index.terms if self._level_of(Affine(((x, 1),))) != VECTOR), index.constant
        )
        total = a.broadcast(Value(self.number(flat, SCALAR), int64))
        for atom, factor in index.terms:
            if self._level_of(Affine(((atom, 1),))) == VECTOR:
                term = self._atom_lanes(atom)
                if factor != 1:
                    term = a.mul(term, a.constant(factor, int64))
                total = a.add(total, term)
        memo[key] = total
        return total

    def _atom_lanes(self, atom: Variable | Quotient) -> Value:
        a = self.vector
        if isinstance(atom, Variable):
            if atom.name == LANE:
                start = a.broadcast(Value(self.names[LANE], int64))
                return a.add(start, a.iota(int64))
            return Value(atom.name, int64)
        if self._wraps_once(atom):
            return self._wrapped(atom)
        inner = self._lanes(atom.of)
        operation = "srem" if atom.remainder else "sdiv"
        type_ = a.llvm_type(int64)
        return Value(self.writer.op(f"{operation} {type_} {inner.ref}, {a.constant(atom.by, int64).ref}"), int64)

    def _wraps_once(self, quotient: Quotient) -> bool:
        """Whether lanes are neighbours, and no more of them than the divisor, so that it is passed once at most."""
        differing = [term for term in quotient.of.terms if self._level_of(Affine((term,))) == VECTOR]
        if len(differing) != 1 or self.vector.lanes > quotient.by:
            return False
        ((atom, factor),) = differing
        return isinstance(atom, Variable) and atom.name == LANE and factor == 1

    def _wrapped(self, quotient: Quotient) -> Value:
        """The quotient, or the remainder, of neighbouring lanes: one division for the first of them."""
        a, (place, passed) = self.vector, self._passed(quotient)
        if quotient.remainder:
            return a.select(passed, a.sub(place, a.constant(quotient.by, int64)), place)
        first = self._from_first_lane(Affine(((quotient, 1),)))
        whole = a.broadcast(Value(self.number(first, SCALAR), int64))
        return a.select(passed, a.add(whole, a.constant(1, int64)), whole)

    def _passed(self, quotient: Quotient) -> tuple[Value, Value]:
        """The remainders of neighbouring lanes, counted on from the first one's, and where they pass the divisor."""
        a = self.vector
        place = a.add(a.broadcast(Value(self._first_remainder(quotient), int64)), a.iota(int64))
        return place, a.le(a.constant(quotient.by, int64), place)

    def _first_remainder(self, quotient: Quotient) -> str:
        remainder = Quotient(quotient.of, quotient.by, True)
        return self.number(self._from_first_lane(Affine(((remainder, 1),))), SCALAR)

    # ---- values

    def value(self, node: Node, index: Index, level: int = VECTOR, guards: tuple[Guard, ...] = ()) -> Value:
        """The element of `node` at `index`, for each lane at level VECTOR."""
        needed = max((self._level_of(axis) for axis in index.axes), default=ROW)
        if node.op.name == "constant":
            return self._arithmetic(level).constant(node["value"], node.dtype)
        if node in self.registers:
            return self.registers[node]
        if node in self.row_values:
            return self._repeated(self.row_values[node], ROW) if level == VECTOR else self.row_values[node]
        if needed < level:
            value = self._memoized(node, index, needed, guards)
            return self._repeated(value, needed) if level == VECTOR else value
        return self._memoized(node, index, level, guards)

    def _memoized(self, node: Node, index: Index, level: int, guards: tuple[Guard, ...]) -> Value:
        # a value that a whole row shares cannot depend on a condition on columns
        guards = tuple(g for g in guards if self._level_of(g.index) <= level)
        key = (node, index.axes, guards)
        memo, lines = self._memos[level], self._row_lines if level == ROW else self.writer.lines
        if level == ROW and not guards and not any(axis.terms for axis in index.axes) and self._is_given(node):
            memo, lines = self._prologue, self.writer.prologue
        if key not in memo:
            outer, self.writer.lines = self.writer.lines, lines
            memo[key] = self._value(node, index, level, guards)
            self.writer.lines = outer
        return memo[key]

    def _is_given(self, node: Node) -> bool:
        """Whether the value is made by elementwise operations of what is in memory before the kernel runs."""
        if node not in self._given:
            if node in self.members or node in self.tiles or node in self.row_values or node in self.registers:
                given = False
            elif node.op.name == "constant" or self.in_memory(node):
                given = True
            else:
                given = node.op.kind == ELEMENTWISE and all(i.shape == () and self._is_given(i) for i in node.inputs)
            self._given[node] = given
        return self._given[node]

    def _repeated(self, value: Value, level: int) -> Value:
        """A scalar in every lane, repeated where the scalar was computed."""
        if self.vector.lanes == 1:
            return value
        key = ("repeated", value.ref, value.dtype)
        memo = self._memos[level]
        if key not in memo:
            with self._at(level):
                memo[key] = self.vector.broadcast(value)
        return memo[key]

    def _value(self, node: Node, index: Index, level: int, guards: tuple[Guard, ...]) -> Value:
        a = self._arithmetic(level)
        if self.in_memory(node):
            return self.load(node, index.flat(), level, guards)
        name = node.op.name
        if name == "iota":
            return self._iota(node, index, level)
        if name == "bounded":
            return self.value(node.inputs[0], index, level, guards)
        if name == "take":
            return self._take(node, index, level, guards)
        if node in self.tiles:
            column = self.names[LANE] if level == VECTOR else "0"  # of one column nothing depends on the lane
            row = f"getelementptr {self.scalar.storage_type(node.dtype)}, ptr {self.tiles[node]}, i64 {column}"
            return a.load(self.writer.op(row), node.dtype)
        if node in self.written and self._is_kept(node, index, level):
            return self.vector.load(self._kept_place(node), node.dtype)
        if node.op.kind == ELEMENTWISE:
            operands = [self.value(i, index if i.shape else Index((), ()), level, guards) for i in node.inputs]
            attributes = {k: v for k, v in node.attributes.items() if k != "shape"}
            result = node.op.body(a, *operands, **attributes)
            if node.dtype.compute is not node.dtype:
                return a.round_to(result, node.dtype)
            if self._is_kept(node, index, level):
                a.store(result, self._kept_place(node), node.dtype)
            return result
        assert node.op.kind != REDUCTION, f"{node!r} (made at {node.source}) is reduced elsewhere but not in memory"
        inner, place, conditions = follow(node, index)
        if not conditions:
            return self.value(inner, place, level, guards)
        value = self.value(inner, place, level, guards + conditions)
        return a.select(self._holds(conditions, level), value, a.constant(0, node.dtype))

    def _iota(self, node: Node, index: Index, level: int) -> Value:
        place = index.axes[node["axis"]]
        self.touched.append(place)
        depth = self._level_of(place)
        if depth == VECTOR:
            return self.vector.convert(self._lanes(place), node.dtype)
        # the axis may vary less than the whole index does
        number = self.scalar.convert(Value(self.number(place, min(level, SCALAR)), int64), node.dtype)
        return self.vector.broadcast(number) if level == VECTOR and self.vector.lanes > 1 else number

    def _take(self, node: Node, index: Index, level: int, guards: tuple[Guard, ...]) -> Value:
        x, places = node.inputs
        rank = len(places.shape)
        at = Index(places.shape, index.axes[:rank])
        needed = min(level, max((self._level_of(axis) for axis in at.axes), default=ROW))
        row = self.value(places, at, needed, guards)
        name = row.ref
        if needed == ROW:
            self.row_names.add(name)
        found = Affine(((Variable(name, max(x.shape[0], 2), needed == VECTOR), 1),))
        return self.value(x, Index(x.shape, (found, *index.axes[rank:])), level, guards)

    def _holds(self, guards: tuple[Guard, ...], level: int) -> Value:
        """Whether all conditions hold, for each lane at level VECTOR."""
        a = self._arithmetic(level)
        result: Value | None = None
        for guard in guards:
            self.touched.append(guard.index)
            if self._level_of(guard.index) == VECTOR:
                place = self._lanes(guard.index)
            else:
                place = Value(self.number(guard.index, min(level, SCALAR)), int64)
                place = a.broadcast(place) if level == VECTOR and a.lanes > 1 else place
            inside = a.bit_and(a.le(a.constant(0, int64), place), a.lt(place, a.constant(guard.size, int64)))
            result = inside if result is None else a.bit_and(result, inside)
        assert result is not None
        return result

    def _is_kept(self, node: Node, index: Index, level: int) -> bool:
        return level == VECTOR and node in self.kept and self.kept[node][0] == index.axes

    def _kept_place(self, node: Node) -> str:
        """Where the kept row has the columns of this vector."""
        type_ = self.scalar.llvm_type(node.dtype)
        return self.writer.op(f"getelementptr {type_}, ptr {self.kept[node][1]}, i64 {self.names[LANE]}")

    # ---- memory

    def pointer(self, node: Node) -> str:
        """The address of a node's memory, read from the arguments once for the kernel."""
        if node not in self._pointers:
            slot, pointer = self.slots.of(node), self.writer.fresh("base")
            place = self.writer.fresh("slot")
            self.writer.entry.append(f"  {place} = getelementptr i64, ptr %args, i64 {slot}")
            self.writer.entry.append(f"  {pointer} = load ptr, ptr {place}")
            self._pointers[node] = pointer
        return self._pointers[node]

    def address(self, node: Node, place: str) -> str:
        """The address of element number `place`."""
        return self.writer.op(
            f"getelementptr {self.scalar.storage_type(node.dtype)}, ptr {self.pointer(node)}, i64 {place}"
        )

    def load(self, node: Node, flat: Affine, level: int, guards: tuple[Guard, ...] = ()) -> Value:
        """Element number `flat` of a node in memory; 0 where a guard does not hold."""
        self.touched.append(flat)
        self.loaded.setdefault(node, set()).add(flat)
        depth = self._level_of(flat)
        if depth < VECTOR:
            loaded = self._load_one(node, flat, min(level, SCALAR), guards, level)
            return self.vector.broadcast(loaded) if level == VECTOR and self.vector.lanes > 1 else loaded
        a = self.vector
        mask = self._holds(guards, VECTOR) if guards else None
        if self.mask is not None:
            mask = self.mask if mask is None else a.bit_and(self.mask, mask)
        factors = [(x, f) for x, f in flat.terms if self._level_of(Affine(((x, 1),))) == VECTOR]
        atom, factor = factors[0] if len(factors) == 1 else (None, 0)
        if isinstance(atom, Variable) and atom.name == LANE and factor == 1:
            return self._load_neighbours(node, flat, mask)
        if isinstance(atom, Quotient) and self._wraps_once(atom):
            if atom.remainder and factor == 1:
                return self._load_around(node, flat, atom, mask)
            if not atom.remainder and factor > 0 and not guards:
                return self._load_two(node, flat, atom, factor)
        return self._load_apart(node, self._lanes(flat), mask)

    def _load_neighbours(self, node: Node, flat: Affine, mask: Value | None) -> Value:
        a, dtype = self.vector, node.dtype
        pointer = self.address(node, self.number(self._from_first_lane(flat), SCALAR))
        if mask is None:
            return a.load(pointer, dtype)
        return a.masked_load(pointer, dtype, mask, a.constant(0, dtype.compute))

    def _load_apart(self, node: Node, place: Value, mask: Value | None) -> Value:
        a, dtype = self.vector, node.dtype
        if mask is not None:
            place = a.select(mask, place, a.constant(0, int64))
        loaded = a.gather(self.pointer(node), place, dtype)
        return loaded if mask is None else a.select(mask, loaded, a.constant(0, dtype.compute))

    def _from_first_lane(self, flat: Affine) -> Affine:
        """The same index as a scalar: LANE stands for the first lane's number."""
        return Affine(
            tuple(
                (Quotient(self._from_first_lane(a.of), a.by, a.remainder), f)
                if isinstance(a, Quotient)
                else (Variable("first", a.extent) if a.name == LANE else a, f)
                for a, f in flat.terms
            ),
            flat.constant,
        )

    def _load_two(self, node: Node, flat: Affine, quotient: Quotient, factor: int) -> Value:
        """Elements of neighbouring lanes by their quotient, which are two at most: that of the first lane, and where
        lanes pass the divisor the next one.
        """
        a, (_, passed) = self.vector, self._passed(quotient)
        # where no lane passes, or counts, there may be no element
        here, last = self.number(self._from_first_lane(flat), SCALAR), math.prod(node.shape) - 1
        there = self.writer.minimum(self.writer.add(here, factor), last)
        here = self.writer.minimum(here, last)
        one, next_ = (a.broadcast(self.scalar.load(self.address(node, at), node.dtype)) for at in (here, there))
        return a.select(passed, next_, one)

    def _load_around(self, node: Node, flat: Affine, quotient: Quotient, mask: Value | None) -> Value:
        """Elements of neighbouring lanes by their remainder: neighbours, but where lanes pass the divisor.

        There they are loaded apart: a masked load would reach before the first element, where a processor that finds no
        page takes long even if no lane reads there.
        """
        a, writer, place = self.vector, self.writer, self._lanes(flat)
        end = writer.add(self._first_remainder(quotient), a.lanes)
        passes = writer.op(f"icmp sgt i64 {end}, {quotient.by}")
        found = writer.variable(a.llvm_type(node.dtype.compute), a.constant(0, node.dtype.compute).ref)
        self.number(self._from_first_lane(flat), SCALAR)  # not in a branch: who asks for it later is given this one
        with writer.when(writer.op(f"xor i1 {passes}, true")):
            found.set(self._load_neighbours(node, flat, mask).ref)
        with writer.when(passes):
            found.set(self._load_apart(node, place, mask).ref)
        return Value(found.get(), node.dtype.compute)

    def _load_one(self, node: Node, flat: Affine, level: int, guards: tuple[Guard, ...], asked: int) -> Value:
        place = self.number(flat, level)
        if not guards:
            return self.scalar.load(self.address(node, place), node.dtype)
        holds = self._holds(guards, asked)
        inside = holds if asked != VECTOR else Value(self.vector.any(holds), bool_)
        zero = self.scalar.constant(0, node.dtype.compute)
        return self.scalar.masked_load(self.address(node, place), node.dtype, inside, zero)

    def store(self, value: Value, node: Node, flat: Affine, level: int) -> None:
        """Write element number `flat` of `node`; at level VECTOR the lanes' elements are neighbours."""
        self.touched.append(flat)
        if level != VECTOR:
            self.scalar.store(value, self.address(node, self.number(flat, level)), node.dtype)
            return
        pointer = self.address(node, self.number(self._from_first_lane(flat), SCALAR))
        if self.mask is None:
            self.vector.store(value, pointer, node.dtype)
        else:
            self.vector.masked_store(value, pointer, node.dtype, self.mask)

    def loop(self, start: str, stop: str, step: int, body: Callable[[str], None]) -> None:
        """A counted loop whose body may still add instructions before the loop, at the row level."""
        writer = self.writer
        head, inside, end = writer.label("head"), writer.label("body"), writer.label("end")
        counter = writer.variable("i64", start)
        outer, writer.lines = writer.lines, []
        writer.place(head)
        i = counter.get()
        writer.line(f"br i1 {writer.op(f'icmp slt i64 {i}, {stop}')}, label %{inside}, label %{end}")
        writer.place(inside)
        body(i)
        counter.set(writer.op(f"add nsw i64 {i}, {step}"))
        writer.line(f"br label %{head}")
        writer.place(end)
        outer.append(f"  br label %{head}")
        outer.extend(writer.lines)
        writer.lines = outer


def lane_variable(extent: int) -> Affine:
    """The variable that runs over lanes."""
    return variable(LANE, extent)


def identity_of(name: str, dtype: DType) -> float | int:
    """The value that leaves a sum, maximum or minimum of `dtype` as it is."""
    if name == "sum":
        return 0
    if dtype.is_floating_point:
        return float("-inf") if name == "max" else float("inf")
    bits = dtype.itemsize * 8
    low, high = (0, 2**bits - 1) if dtype.is_unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return low if name == "max" else high
