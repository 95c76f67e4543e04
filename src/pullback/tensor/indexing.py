"""Indexing: `t[...]` and `t[...] = v` by PyTorch's rules.

A basic index (integers, also as tensors of shape [], slices, None, Ellipsis) is a view. Integer tensors with axes
address the flattened axes that they stand on by one computed index, so reading is one `take` and writing one `put`. A
bool tensor stands for the integer tensors of the places where it holds; how many those are depends on its values, so it
is read at once, but for writes that can be told place by place (`where`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, IndexOutOfRange, ShapeError, TraceError
from ..graph.node import Node, Shape
from ..graph.types import bool_, int64, uint8
from ..ops import elementwise as e
from ..ops.indexing import bounded, put, scatter_add, take
from ..ops.movement import expand, permute, reshape
from ..ops.primitive import constant, user_source
from .handle import Handle
from .promotion import Operand, as_node
from .state import STATE
from .views import Chain, Cut, Layout, Movement, Reshape, numbers_of

if TYPE_CHECKING:
    from . import Tensor


def wrapped(index: Node, size: int, what: str) -> Node:
    """Negative indices counted from the end; others outside the axis are an error when they are computed."""
    index = bounded(index, -size, size, what)
    return e.where(e.lt(index, constant(0, int64)), e.add(index, constant(size, int64)), index)


def _as_tensor(item: Any, axis: int) -> Tensor:
    """An index that is a tensor, an array or a nested list, as a tensor of integers or bool."""
    from .creation import tensor

    made = item if isinstance(item, Handle) else tensor(item)
    if made.numel() == 0 and not isinstance(item, (Handle, np.ndarray)):
        made = made.to(int64)  # type: ignore[attr-defined]
    if made.dtype.is_floating_point:
        raise DTypeError(
            f"an index must be of integers, got {made.dtype.name} (axis {axis}, at {user_source()}); use .long()"
        )
    return made.to(bool_) if made.dtype is uint8 else made  # type: ignore[attr-defined, return-value]


def _places_of(mask: Tensor) -> list[Tensor]:
    """Where a mask holds: one vector of indices an axis, or one of none or one zero without axes. Reads the mask."""
    from .creation import tensor

    values = mask._fixed_numbers() if STATE.trace is not None else mask._numbers()
    if values is None:
        raise TraceError(
            f"an index of bool {list(mask.shape)} inside a compiled step (at {user_source()}): the size of t[mask] "
            "depends on values, also where it is computed only to be written back. Use pb.where(mask, t, other), "
            "t.masked_fill(mask, value), or t[mask] = value with a value that does not depend on how many places there "
            "are. In place of t[mask] *= 2 or t[mask] = f(t[mask]) write t[...] = pb.where(mask, f(t), t), with "
            "mask[:, None] for a mask of rows."
        )
    return [tensor(places) for places in np.nonzero(np.atleast_1d(values))]


def _items(index: Any) -> list[Any]:
    """The parts of an index. A list is one of them, unless it holds what only a tuple can."""
    if isinstance(index, list) and any(i is None or i is Ellipsis or isinstance(i, slice) for i in index):
        index = tuple(index)
    return list(index) if isinstance(index, tuple) else [index]


def _is_number(item: Any) -> bool:
    return isinstance(item, (int, np.integer)) and not isinstance(item, (bool, np.bool_))


class Parsed:
    """An index taken apart: what to cut from each axis, then which axes tensors address.

    `shape` is that of the cut with integer axes dropped and new axes put in; `tensors` maps an axis of that shape to
    its integer tensor, `masks` the first of the axes that a mask stands on to it. `numbers` has the tensors of shape []
    as they are given.
    """

    def __init__(self, index: Any, shape: Shape):
        self.whole = shape
        self.bounds: list[tuple[int, int]] = []
        self.steps: list[int] = []
        self.shape: list[int] = []
        self.tensors: dict[int, Node] = {}
        self.masks: dict[int, Tensor] = {}
        self.numbers: dict[int, Handle] = {}
        items: list[Any] = []
        used = 0
        for item in _items(index):
            if item is not None and item is not Ellipsis and not isinstance(item, slice) and not _is_number(item):
                item = _as_tensor(item, used)
                used += item.ndim if item.dtype is bool_ else 1
            else:
                used += item is not None and item is not Ellipsis
            items.append(item)
        if used > len(shape):
            raise IndexOutOfRange(
                f"{used} indices for a tensor with {len(shape)} axes, shape {list(shape)} (at {user_source()})"
            )
        if sum(1 for i in items if i is Ellipsis) > 1:
            raise IndexOutOfRange(f"more than one Ellipsis in an index (at {user_source()})")
        if not any(i is Ellipsis for i in items):
            items.append(Ellipsis)
        for item in items:
            self._take(item, len(shape) - used)

    def _take(self, item: Any, rest: int) -> None:
        if item is Ellipsis:
            for _ in range(rest):
                self._cut(slice(None))
        elif item is None:
            self.shape.append(1)
        elif isinstance(item, slice):
            self._cut(item)
        elif isinstance(item, Handle):
            self._address(item)  # type: ignore[arg-type]
        else:
            axis, place = len(self.bounds), int(item)
            size = self.whole[axis]
            if not -size <= place < size:
                raise IndexOutOfRange(f"index {place} is outside axis {axis} of size {size} (at {user_source()})")
            self.bounds.append((place % size, place % size + 1))
            self.steps.append(1)

    def _address(self, item: Tensor) -> None:
        axis = len(self.bounds)
        if item.dtype is not bool_:
            index = e.convert(item.node, int64)
            self.tensors[len(self.shape)] = wrapped(index, self.whole[axis], f"index into axis {axis}:")
            if not item.shape:
                self.numbers[len(self.shape)] = item
            self._cut(slice(None))
            return
        if item.shape != self.whole[axis : axis + item.ndim]:
            raise IndexOutOfRange(
                f"a mask of shape {list(item.shape)} on axes {axis} to {axis + item.ndim - 1} of {list(self.whole)} "
                f"(at {user_source()}): the sizes must be equal"
            )
        self.masks[len(self.shape)] = item
        if not item.ndim:
            self.shape.append(1)
        for _ in range(item.ndim):
            self._cut(slice(None))

    def _cut(self, item: slice) -> None:
        size = self.whole[len(self.bounds)]
        plain = [None if part is None else operator.index(part) for part in (item.start, item.stop, item.step)]
        if plain[2] is not None and plain[2] <= 0:
            raise IndexOutOfRange(f"a slice with a negative step or 0 (at {user_source()}); use .flip(axis)")
        start, stop, step = slice(*plain).indices(size)
        count = max(0, -(-(stop - start) // step))
        self.bounds.append((start, start + (count - 1) * step + 1 if count else start))
        self.steps.append(step)
        self.shape.append(count)

    @property
    def movement(self) -> Movement:
        """The view that the basic indices take."""
        return Chain((Cut(tuple(self.bounds), tuple(self.steps)), Reshape(tuple(self.shape))))

    @property
    def view(self) -> Movement | None:
        """The view that the whole index takes; None where it takes a copy."""
        if self.masks or len(self.numbers) < len(self.tensors):
            return None
        if not self.numbers:
            return self.movement
        # each has a tensor of its own, since the one given may be written to
        own = tuple((axis, number._wrap(number.node)) for axis, number in self.numbers.items())
        return Chain((self.movement, Picked(own)))

    def settle_masks(self) -> None:
        """Have each mask's places in its stead. Reads the masks."""
        for axis, mask in self.masks.items():
            self.tensors.update({axis + i: place.node for i, place in enumerate(_places_of(mask))})
        self.masks = {}

    @property
    def is_uniform(self) -> bool:
        """Whether no tensor of shape [] stands beside others: that one is an integer, which is no axis' place."""
        return len({bool(t.shape) for t in self.tensors.values()}) <= 1


class _Addressed:
    """The rows of a cut that integer tensors address, and how the result is ordered."""

    def __init__(self, tensors: dict[int, Node], shape: Shape):
        self.shape = shape
        self.axes = tuple(sorted(tensors))
        common = e.broadcast_shapes("index", *(tensors[a].shape for a in self.axes))
        flat: Node | None = None
        for axis in self.axes:
            part = tensors[axis]
            flat = part if flat is None else e.add(e.mul(flat, constant(shape[axis], int64)), part)
        assert flat is not None
        self.flat = expand(flat, common)
        self.front = (*self.axes, *(a for a in range(len(shape)) if a not in self.axes))
        # the index's axes stand in place of the addressed ones if those are neighbours, else in front
        neighbours = self.axes == tuple(range(self.axes[0], self.axes[0] + len(self.axes)))
        before, lead, rest = self.axes[0] if neighbours else 0, len(common), len(shape) - len(self.axes)
        self.order = (*range(lead, lead + before), *range(lead), *range(lead + before, lead + rest))

    def rows(self, part: Node) -> Node:
        """The cut as rows, one a place that can be addressed."""
        moved = permute(part, self.front)
        count = len(self.axes)
        return reshape(moved, (math.prod(moved.shape[:count]), *moved.shape[count:]))

    def read(self, part: Node) -> Node:
        """What the index gives of the cut."""
        return permute(take(self.rows(part), self.flat), self.order)

    def write(self, part: Node, value: Node, accumulate: bool) -> Node:
        """The cut with `value`, of the shape that `read` gives, written or added to the addressed rows."""
        rows = self.rows(part)
        values = permute(value, _inverse(self.order))
        if accumulate:
            changed = e.add(rows, scatter_add(self.flat, values, rows.shape[0]))
        else:
            changed = put(rows, self.flat, values)
        return permute(reshape(changed, tuple(self.shape[a] for a in self.front)), _inverse(self.front))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(axes))


@dataclass(frozen=True, eq=False)
class Picked(Movement):
    """What stands at one place, told by a tensor of shape [], along each of some axes, which it drops."""

    places: tuple[tuple[int, Handle], ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picked) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(tuple(axis for axis, _ in self.places))

    def _key(self) -> list[tuple[int, int]]:
        return [(axis, id(place._node)) for axis, place in self.places]

    def _addressed(self, shape: Shape) -> _Addressed:
        wholes = {axis: e.convert(place.node, int64) for axis, place in self.places}
        return _Addressed({a: wrapped(n, shape[a], f"index into axis {a}:") for a, n in wholes.items()}, shape)

    def read(self, base: Node) -> Node:
        return self._addressed(base.shape).read(base)

    def write(self, base: Node, value: Node) -> Node:
        return self._addressed(base.shape).write(base, value, False)

    def layout(self, layout: Layout) -> Layout:
        shape, strides, offset = layout
        places = dict(self.places)
        kept = [axis for axis in range(len(shape)) if axis not in places]
        is_known = STATE.trace is None and STATE.loop is None and STATE.example is None
        for axis, place in self.places:
            at: Any = place.item() if is_known else math.nan
            offset += (at + shape[axis] if at < 0 else at) * strides[axis]
        return tuple(shape[a] for a in kept), tuple(strides[a] for a in kept), offset


def _read(part: Node, parsed: Parsed) -> Node:
    """What the integer tensors of an index give of its cut."""
    tensors = dict(parsed.tensors)
    if not parsed.is_uniform:
        for axis in sorted((a for a, t in tensors.items() if not t.shape), reverse=True):
            part = _Addressed({axis: tensors.pop(axis)}, part.shape).read(part)
            tensors = {a - (a > axis): t for a, t in tensors.items()}
    return _Addressed(tensors, part.shape).read(part)


def fitted(value: Node, shape: Shape) -> Node:
    """A value repeated to the shape of what it is written to; leading axes of size 1 are dropped."""
    extra = len(value.shape) - len(shape)
    if extra > 0 and all(s == 1 for s in value.shape[:extra]):
        value = reshape(value, value.shape[extra:])
    if len(value.shape) > len(shape) or e.broadcast_shapes("assignment", value.shape, shape) != shape:
        raise ShapeError(
            f"cannot write shape {list(value.shape)} into a part of shape {list(shape)} (at {user_source()})"
        )
    return expand(value, shape)


def _written(x: Node, parsed: Parsed, value: Node, accumulate: bool) -> Node:
    """`x` with `value` written, or added, at an index."""
    movement = parsed.movement
    part = movement.read(x)
    if len(parsed.masks) == 1 and not parsed.tensors and not accumulate:
        chosen = _chosen(part, parsed, value)
        if chosen is not None:
            return movement.write(x, chosen)
    parsed.settle_masks()
    if not parsed.tensors:
        values = fitted(value, part.shape)
        return movement.write(x, e.add(part, values) if accumulate else values)
    if not parsed.is_uniform:
        # every element's number, read like the tensor, says where each written element goes
        places = _read(movement.read(numbers_of(x.shape)), parsed)
        every = _Addressed({0: reshape(places, (math.prod(places.shape),))}, (math.prod(x.shape),))
        values = reshape(fitted(value, places.shape), every.flat.shape)
        return reshape(every.write(reshape(x, every.shape), values, accumulate), x.shape)
    addressed = _Addressed(parsed.tensors, part.shape)
    rest = tuple(part.shape[a] for a in addressed.front[len(addressed.axes) :])
    shape = tuple((*addressed.flat.shape, *rest)[a] for a in addressed.order)
    return movement.write(x, addressed.write(part, fitted(value, shape), accumulate))


def _chosen(part: Node, parsed: Parsed, value: Node) -> Node | None:
    """The cut with `value` where its one mask holds; None where the value depends on how many places there are."""
    ((axis, mask),) = parsed.masks.items()
    rank = max(mask.ndim, 1)
    after = part.shape[axis + rank :]
    whole = (*part.shape[:axis], 1, *after)
    extra = len(value.shape) - len(whole)
    if extra > 0 and all(s == 1 for s in value.shape[:extra]):
        value = reshape(value, value.shape[extra:])
    lead = len(value.shape) - len(after)
    if lead > 0 and (value.shape[lead - 1] != 1 or len(value.shape) > len(whole)):
        return None
    if e.broadcast_shapes("assignment", value.shape, whole) != whole:
        sizes = [*part.shape[:axis], "n", *after]
        raise ShapeError(f"cannot write shape {list(value.shape)} into a part of shape {sizes} (at {user_source()})")
    if lead > 0:
        value = reshape(value, (*value.shape[: lead - 1], *(1,) * rank, *value.shape[lead:]))
    where = reshape(mask.node, (*(mask.shape or (1,)), *(1,) * len(after)))
    return e.where(where, value, part)


class IndexMethods(Handle):
    """Reading and writing by index."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Tensor:
        parsed = Parsed(index, self.shape)
        parsed.settle_masks()
        view = parsed.view
        if view is not None:
            return self._view(view)
        return self._wrap(_read(parsed.movement.read(self.node), parsed))

    def __setitem__(self, index: Any, value: Operand) -> None:
        parsed = Parsed(index, self.shape)
        link = value._link if isinstance(value, Handle) else None
        if link is not None and link.base is self and link.movement == parsed.view:
            return  # x[i] += v has written to x through its view already
        self._assign(_written(self.node, parsed, self._as_value(value), False))

    def _as_value(self, value: Any) -> Node:
        from .creation import tensor

        if not isinstance(value, (Handle, bool, int, float)):
            value = tensor(value, dtype=self.dtype)
        return as_node(value, self.dtype)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError(f"iteration over a 0-d tensor (at {user_source()})")
        return iter([self[i] for i in range(self.shape[0])])

    def index_put(self, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
        """self with `values` written (with `accumulate` added) at `self[indices]`, a tuple of tensors."""
        if values.dtype is not self.dtype:
            raise DTypeError(
                f"index_put: values are {values.dtype.name}, the tensor is {self.dtype.name} (at {user_source()})"
            )
        return self._wrap(_written(self.node, Parsed(tuple(indices), self.shape), values.node, accumulate))

    def index_put_(self, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
        """`index_put` into the tensor itself."""
        return self._assign(self.index_put(indices, values, accumulate).node)


__all__ = ["IndexMethods", "fitted", "wrapped"]
