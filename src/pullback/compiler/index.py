"""Indices as expressions: where, in each operand, a kernel finds the element that it needs.

An index is a sum of variables times constants (`Affine`), in which quotients and remainders of such sums and values
read from memory may stand as variables too. Following an index through movement nodes keeps it in this form, so a
transposed, sliced or broadcast operand is read where it lies. Quotients and remainders that belong together are put
together again: (i // 4) * 8 + (i % 4) * 2 is i * 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph.node import Node, Shape, exact
from ..graph.types import promote


@dataclass(frozen=True)
class Variable:
    """A loop variable: 0 ≤ value < extent. `ssa` names a value that was read from memory, `vector` one a lane."""

    name: str
    extent: int
    vector: bool = False


@dataclass(frozen=True)
class Quotient:
    """An index divided by a constant, or what that leaves."""

    of: Affine
    by: int
    remainder: bool

    @property
    def extent(self) -> int:
        return self.by if self.remainder else self.of.bounds()[1] // self.by + 1


Atom = Variable | Quotient


@dataclass(frozen=True)
class Affine:
    """constant + the sum of factor * atom, atoms in a fixed order, no factor 0."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value that the index can have."""
        low = high = self.constant
        for atom, factor in self.terms:
            reach = factor * (atom.extent - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.constant + other)
        return _sum([*self.terms, *other.terms], self.constant + other.constant)

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(tuple((atom, f * factor) for atom, f in self.terms), self.constant * factor)

    def factor(self, atom: Atom) -> int:
        """By what `atom` is multiplied; 0 where it does not occur on its own."""
        return next((f for a, f in self.terms if a == atom), 0)

    def split(self, by: int) -> tuple[Affine, Affine]:
        """Quotient and remainder by a constant, exact where the terms allow it, else as atoms."""
        if by <= 1:  # an axis of no elements is never read
            return self, Affine()
        outer = [(a, f // by) for a, f in self.terms if f % by == 0]
        inner = Affine(tuple((a, f) for a, f in self.terms if f % by), self.constant % by)
        low, high = inner.bounds()
        if low >= 0 and high < by:
            return _sum(outer, self.constant // by), inner
        if low >= 0:  # what is divisible leaves the quotient
            whole = _sum([*outer, (Quotient(inner, by, False), 1)], self.constant // by)
            return whole, _sum([(Quotient(inner, by, True), 1)], 0)
        low, high = self.bounds()
        if low >= 0 and high < by:
            return Affine(), self
        return _sum([(Quotient(self, by, False), 1)], 0), _sum([(Quotient(self, by, True), 1)], 0)

    def variables(self) -> set[Variable]:
        """The variables that the index depends on, those within quotients included."""
        found: set[Variable] = set()
        for atom, _ in self.terms:
            found |= {atom} if isinstance(atom, Variable) else atom.of.variables()
        return found

    def quotients(self) -> set[Variable]:
        """The variables that occur within quotients."""
        return {v for atom, _ in self.terms if isinstance(atom, Quotient) for v in atom.of.variables()}


def _sum(terms: list[tuple[Atom, int]], constant: int) -> Affine:
    """The sum of terms, equal atoms added and quotients joined with their remainders."""
    factors: dict[Atom, int] = {}
    for atom, factor in terms:
        factors[atom] = factors.get(atom, 0) + factor
    joined: list[tuple[Affine, int]] = []
    for atom in list(factors):
        if isinstance(atom, Quotient) and atom.remainder:
            partner = Quotient(atom.of, atom.by, False)
            factor = factors[atom]
            if factor and factors.get(partner) == factor * atom.by:
                del factors[atom], factors[partner]
                joined.append((atom.of, factor))
    left = [(a, f) for a, f in factors.items() if f]
    if len(left) > 1:
        left.sort(key=_order)
    result = Affine(tuple(left), constant)
    for inner, factor in joined:
        result = result + inner * factor
    return result


def _order(term: tuple[Atom, int]) -> tuple[str, str]:
    """Variables by their names, then quotients."""
    atom = term[0]
    return (atom.name, "") if isinstance(atom, Variable) else ("~", repr(atom))


def variable(name: str, extent: int, vector: bool = False) -> Affine:
    """A variable alone; a variable that can only be 0 is 0."""
    return Affine(((Variable(name, extent, vector), 1),)) if extent > 1 or vector else Affine()


@dataclass(frozen=True)
class Index:
    """A place in a value of `shape`: one index an axis."""

    shape: Shape
    axes: tuple[Affine, ...]

    @classmethod
    def at(cls, flat: Affine, shape: Shape) -> Index:
        """The place of element number `flat` in row-major order."""
        axes: list[Affine] = []
        for size in reversed(shape[1:]):
            flat, inner = flat.split(size)
            axes.append(inner)
        if shape:
            axes.append(flat)
        return cls(shape, tuple(reversed(axes)))

    def flat(self) -> Affine:
        """The number of the element in row-major order."""
        total, stride = Affine(), 1
        for size, axis in zip(reversed(self.shape), reversed(self.axes), strict=True):
            total, stride = total + axis * stride, stride * size
        return total


@dataclass(frozen=True)
class Guard:
    """The condition 0 ≤ index < size under which an element of a padded value is one of the inner value."""

    index: Affine
    size: int


def follow(node: Node, index: Index) -> tuple[Node, Index, tuple[Guard, ...]]:
    """Where the element `index` of a movement node is found in its input, and under which conditions."""
    inner = node.inputs[0]
    name = node.op.name
    guards: tuple[Guard, ...] = ()
    if name == "reshape":
        return inner, Index.at(index.flat(), inner.shape), ()
    if name == "permute":
        place = {axis: i for i, axis in enumerate(node["axes"])}
        axes = [index.axes[place[axis]] for axis in range(len(inner.shape))]
    elif name == "expand":
        kept = index.axes[len(index.axes) - len(inner.shape) :]
        axes = [Affine() if size == 1 else axis for axis, size in zip(kept, inner.shape, strict=True)]
    elif name == "slice":
        axes = [axis + start for axis, (start, _) in zip(index.axes, node["bounds"], strict=True)]
    elif name == "flip":
        axes = [
            axis * -1 + (size - 1) if i in node["axes"] else axis
            for i, (axis, size) in enumerate(zip(index.axes, inner.shape, strict=True))
        ]
    elif name == "pad":
        axes = [axis + -low for axis, (low, _) in zip(index.axes, node["widths"], strict=True)]
        guards = tuple(
            Guard(axis, size)
            for axis, size, widths in zip(axes, inner.shape, node["widths"], strict=True)
            if any(widths)
        )
    else:
        raise AssertionError(f"{node!r} does not move its input")
    return inner, Index(inner.shape, tuple(axes)), guards


@dataclass(frozen=True)
class View:
    """A value read in place: element (i, j, …) is `base`'s element offset + i * strides[0] + j * strides[1] …"""

    base: Node
    strides: tuple[int, ...]
    offset: int


def strided_view(operand: Node, stops: Callable[[Node], bool], rounds: bool = False) -> View | None:
    """How to read `operand` in the memory of the node under it at which `stops(node)`; None where no strides do it.

    Where the reader `rounds` what it reads to the dtype of `operand`, the way may lead through a conversion of floats,
    and through others before it that change no value.
    """
    node, way, may_round = operand, [], rounds
    while not stops(node):
        if rounds and node.op.name == "convert" and _is_passed(node, may_round):
            node, may_round = node.inputs[0], False
            continue
        if not node.inputs or node.op.kind != "movement" or node.op.name == "concatenate":
            return None
        way.append(node)
        node = node.inputs[0]
    # layers of a deep network read alike: what follows from shapes and attributes is worked out once
    key = operand.shape, node.shape, *((n.op.name, n.shape, *map(exact, n.attributes.values())) for n in way)
    if key not in _VIEWS:
        if len(_VIEWS) >= _MOST_VIEWS:
            _VIEWS.clear()
        _VIEWS[key] = _strides(operand, way)
    found = _VIEWS[key]
    return None if found is None else View(node, *found)


def _is_passed(conversion: Node, may_round: bool) -> bool:
    """Whether a conversion is of floats, and it may round, or changes no value."""
    (operand,), dtype = conversion.inputs, conversion.dtype
    of_floats = operand.dtype.is_floating_point and dtype.is_floating_point
    return of_floats and (may_round or promote(operand.dtype, dtype) is dtype)


#: strides and offset by the shapes and movements on the way, None where no strides do it
_VIEWS: dict[tuple[object, ...], tuple[tuple[int, ...], int] | None] = {}
_MOST_VIEWS = 10_000


def _strides(operand: Node, way: list[Node]) -> tuple[tuple[int, ...], int] | None:
    """The strides and the offset by which `operand` is read through the movements on the `way` to its memory."""
    loops = [variable(f"i{axis}", size) for axis, size in enumerate(operand.shape)]
    index = Index(operand.shape, tuple(loops))
    for node in way:
        _, index, guards = follow(node, index)
        if guards:
            return None
    flat = index.flat()
    if flat.quotients():
        return None
    return tuple(flat.factor(loop.terms[0][0]) if loop.terms else 0 for loop in loops), flat.constant


def contiguous_view(operand: Node, stops: Callable[[Node], bool], first_axis_apart: bool = False) -> View | None:
    """The view of an operand that lies in row-major order, or whose slices along the first axis do; None of others."""
    view = strided_view(operand, stops)
    if view is None or 0 in operand.shape:
        return view
    expected = 1
    for axis in reversed(range(first_axis_apart, len(operand.shape))):
        if operand.shape[axis] != 1 and view.strides[axis] != expected:
            return None
        expected *= operand.shape[axis]
    return view
