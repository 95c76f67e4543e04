"""Views: tensors that are read from another and written back into it.

Tensors share no storage (docs/decisions/values-and-memory.md): a view remembers its base and the movement by which it
is read. When the base has changed, the view is read from it anew; a write to the view writes to the base what the
movement takes from there. So views behave as PyTorch's do, and graphs still know of values only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

import numpy as np

from ..errors import ViewError
from ..graph.node import Node, Shape
from ..graph.types import DType, int64, to_carrier, to_storage
from ..ops import elementwise as e
from ..ops.host import detach, host_call
from ..ops.indexing import put, take
from ..ops.movement import Pairs, concatenate, expand, pad, permute, reshape, slice_
from ..ops.primitive import MODE, constant, iota, user_source

if TYPE_CHECKING:
    from .handle import Handle

#: the sizes, the strides and the offset, in elements, that a tensor of PyTorch's would have; the offset is nan where it
#: is computed by a step that is being recorded
Layout = tuple[Shape, Shape, int]


def contiguous_strides(shape: Shape) -> Shape:
    """The strides of elements in row-major order."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_row_major(shape: Shape, strides: Shape) -> bool:
    """Whether elements at these strides lie in row-major order without gaps."""
    if 0 in shape:
        return True
    wanted = contiguous_strides(shape)
    return all(size == 1 or have == want for size, have, want in zip(shape, strides, wanted, strict=True))


def numbers_of(shape: Shape) -> Node:
    """The number of each element in row-major order (int64)."""
    return reshape(iota((math.prod(shape),), 0, int64), shape)


class Movement:
    """How a view is read from its base, and how the base becomes what a write to the view makes of it."""

    def read(self, base: Node) -> Node:
        """The view of `base`."""
        raise NotImplementedError

    def write(self, base: Node, value: Node) -> Node:
        """`base` with `value` (of the view's shape and dtype) where the view is read from."""
        count = math.prod(base.shape)
        places = self.read(numbers_of(base.shape))
        rows = math.prod(places.shape)
        flat = put(reshape(base, (count,)), reshape(places, (rows,)), reshape(value, (rows,)))
        return reshape(flat, base.shape)

    def layout(self, layout: Layout) -> Layout | None:
        """Where the view's elements lie if the base's lie by `layout`; None where no strides can say it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reshape(Movement):
    """Another shape of the same elements."""

    shape: Shape

    def read(self, base: Node) -> Node:
        return reshape(base, self.shape)

    def write(self, base: Node, value: Node) -> Node:
        return reshape(value, base.shape)

    def layout(self, layout: Layout) -> Layout | None:
        shape, strides, offset = layout
        found = _reshaped_strides(shape, strides, self.shape)
        return None if found is None else (self.shape, found, offset)


def _reshaped_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """The strides under another shape, as `view` finds them: each new axis lies within one run of old ones."""
    if is_row_major(shape, strides):
        return contiguous_strides(wanted)
    old = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    result = [1] * len(wanted)
    axis = len(wanted) - 1
    while old:
        size, stride = old.pop()
        step = stride
        while old and old[-1][1] == size * stride:
            size *= old.pop()[0]
        held = 1
        while axis >= 0 and (held < size or wanted[axis] == 1):
            result[axis] = step
            step *= wanted[axis]
            held *= wanted[axis]
            axis -= 1
        if held != size:
            return None
    return tuple(result)


@dataclass(frozen=True)
class Permute(Movement):
    """The axes in another order."""

    axes: tuple[int, ...]

    def read(self, base: Node) -> Node:
        return permute(base, self.axes)

    def write(self, base: Node, value: Node) -> Node:
        return permute(value, tuple(int(i) for i in np.argsort(self.axes)))

    def layout(self, layout: Layout) -> Layout:
        shape, strides, offset = layout
        return tuple(shape[a] for a in self.axes), tuple(strides[a] for a in self.axes), offset


@dataclass(frozen=True)
class Expand(Movement):
    """Axes of size 1, and new ones in front, repeated."""

    shape: Shape

    def read(self, base: Node) -> Node:
        return expand(base, self.shape)

    def write(self, base: Node, value: Node) -> Node:
        if 0 in self.shape:
            return base
        if math.prod(self.shape) > math.prod(base.shape):
            raise ViewError(
                f"a write into an expanded tensor (at {user_source()}): several of the {list(self.shape)} elements are "
                f"one of {list(base.shape)}. Take a .clone() of it first."
            )
        return reshape(value, base.shape)

    def layout(self, layout: Layout) -> Layout:
        shape, strides, offset = layout
        lead = len(self.shape) - len(shape)
        kept = tuple(
            stride if have == want else 0 for have, want, stride in zip(shape, self.shape[lead:], strides, strict=True)
        )
        return self.shape, (0,) * lead + kept, offset


@dataclass(frozen=True)
class Cut(Movement):
    """Of each axis every `steps`-th element from start to stop (excluded)."""

    bounds: Pairs
    steps: tuple[int, ...]

    def read(self, base: Node) -> Node:
        x = slice_(base, self.bounds)
        for axis, step in enumerate(self.steps):
            if step > 1:
                x = _every(x, axis, step)
        return x

    def write(self, base: Node, value: Node) -> Node:
        if value.shape == base.shape:
            return value
        inside: Node | None = None
        for axis, ((start, stop), step) in enumerate(zip(self.bounds, self.steps, strict=True)):
            size = base.shape[axis]
            if (start, stop, step) != (0, size, 1):
                value = _spread(value, axis, step, start, size)
                here = _is_inside(size, start, stop, step)
                here = reshape(here, tuple(size if a == axis else 1 for a in range(len(base.shape))))
                inside = here if inside is None else e.bit_and(inside, here)
        assert inside is not None
        return e.where(inside, value, base)

    def layout(self, layout: Layout) -> Layout:
        _, strides, offset = layout
        sizes = tuple(-(-(stop - start) // step) for (start, stop), step in zip(self.bounds, self.steps, strict=True))
        begun = sum(start * stride for (start, _), stride in zip(self.bounds, strides, strict=True))
        return sizes, tuple(s * step for s, step in zip(strides, self.steps, strict=True)), offset + begun


def _is_inside(size: int, start: int, stop: int, step: int) -> Node:
    """Which of `size` places a slice takes."""
    place = iota((size,), 0, int64)
    inside = e.bit_and(e.le(constant(start, int64), place), e.lt(place, constant(stop, int64)))
    if step > 1:
        number = e.sub(place, constant(start, int64))
        inside = e.bit_and(inside, e.eq(e.remainder(number, constant(step, int64)), constant(0, int64)))
    return inside


def _widths(x: Node, axis: int, low: int, high: int) -> Pairs:
    return tuple((low, high) if a == axis else (0, 0) for a in range(len(x.shape)))


def _every(x: Node, axis: int, step: int) -> Node:
    """Every `step`-th element along `axis`, by cutting the axis in two: the gradients are slice's and reshape's."""
    size = x.shape[axis]
    count = -(-size // step)
    x = pad(x, _widths(x, axis, 0, count * step - size))
    x = reshape(x, (*x.shape[:axis], count, step, *x.shape[axis + 1 :]))
    x = slice_(x, tuple((0, 1) if i == axis + 1 else (0, s) for i, s in enumerate(x.shape)))
    return reshape(x, (*x.shape[: axis + 1], *x.shape[axis + 2 :]))


def _spread(x: Node, axis: int, step: int, start: int, size: int) -> Node:
    """The elements along `axis` put `step` apart from `start` on in `size` places, zeros between them."""
    before, count, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    if step > 1:
        x = pad(reshape(x, (*before, count, 1, *after)), _widths_of_steps(len(before), len(after), step))
        x = reshape(x, (*before, count * step, *after))
    length = min(count * step, size - start)
    x = slice_(x, tuple((0, length) if a == axis else (0, s) for a, s in enumerate(x.shape)))
    return pad(x, _widths(x, axis, start, size - start - length))


def _widths_of_steps(before: int, after: int, step: int) -> Pairs:
    return (*((0, 0),) * (before + 1), (0, step - 1), *((0, 0),) * after)


@dataclass(frozen=True)
class Strided(Movement):
    """The elements at an offset and strides from the first, of a base whose elements lie in row-major order."""

    shape: Shape
    strides: Shape
    offset: int

    def _places(self) -> Node:
        total: Node = constant(self.offset, int64)
        for axis, stride in enumerate(self.strides):
            total = e.add(total, e.mul(iota(self.shape, axis, int64), constant(stride, int64)))
        return expand(total, self.shape)

    def read(self, base: Node) -> Node:
        return take(reshape(base, (math.prod(base.shape),)), self._places())

    def write(self, base: Node, value: Node) -> Node:
        places = [0]
        for size, stride in zip(self.shape, self.strides, strict=True):
            places = [p + i * stride for p in places for i in range(size)]
        if len(set(places)) < len(places):
            raise ViewError(
                f"a write into overlapping elements (at {user_source()}): of shape {list(self.shape)} at strides "
                f"{list(self.strides)} some are the same element of the base. Take a .clone() first."
            )
        return super().write(base, value)

    def layout(self, layout: Layout) -> Layout:
        return self.shape, self.strides, layout[2] + self.offset


@dataclass(frozen=True)
class Chain(Movement):
    """One movement after the other."""

    parts: tuple[Movement, ...]

    def read(self, base: Node) -> Node:
        for part in self.parts:
            base = part.read(base)
        return base

    def write(self, base: Node, value: Node) -> Node:
        stages = [base]
        for part in self.parts[:-1]:
            stages.append(part.read(stages[-1]))
        for part, stage in zip(reversed(self.parts), reversed(stages), strict=True):
            value = part.write(stage, value)
        return value

    def layout(self, layout: Layout) -> Layout | None:
        found: Layout | None = layout
        for part in self.parts:
            found = None if found is None else part.layout(found)
        return found


@dataclass(frozen=True)
class Diagonal(Movement):
    """The diagonals of the matrices along two axes, as a last axis."""

    chain: Chain
    axes: tuple[int, int]
    starts: tuple[int, int]
    length: int

    @classmethod
    def of(cls, shape: Shape, offset: int, first: int, second: int) -> Diagonal:
        """The diagonal `offset` places above the main one, of the axes `first` and `second` of `shape`."""
        above, below = max(offset, 0), max(-offset, 0)
        length = max(0, min(shape[first] - below, shape[second] - above))
        rest = tuple(a for a in range(len(shape)) if a not in (first, second))
        kept = tuple(shape[a] for a in rest)
        starts = (min(below, shape[first]), min(above, shape[second]))
        block = (*((0, s) for s in kept), *((start, start + length) for start in starts))
        count = length * length
        chain = Chain(
            (
                Permute((*rest, first, second)),
                Cut(block, (1,) * len(shape)),
                Reshape((*kept, count)),
                # one element of each row, a place further in each: every (length + 1)-th of all
                Cut((*((0, s) for s in kept), (0, count)), (*(1 for _ in kept), length + 1)),
            )
        )
        return cls(chain, (first, second), starts, length)

    def read(self, base: Node) -> Node:
        return self.chain.read(base)

    def write(self, base: Node, value: Node) -> Node:
        return self.chain.write(base, value)

    def layout(self, layout: Layout) -> Layout:
        shape, strides, offset = layout
        rest = [a for a in range(len(shape)) if a not in self.axes]
        begun = sum(start * strides[a] for start, a in zip(self.starts, self.axes, strict=True))
        kept = tuple(strides[a] for a in rest)
        return (
            (*(shape[a] for a in rest), self.length),
            (*kept, sum(strides[a] for a in self.axes)),
            offset + begun,
        )


#: up to this many slices a window is put together from them; from there on its elements are gathered
_MOST_SLICES = 64


@dataclass(frozen=True)
class Windows(Movement):
    """Windows of `size` elements along an axis, one every `step`; a new last axis runs within the window."""

    axis: int
    size: int
    step: int

    def _count(self, whole: int) -> int:
        return (whole - self.size) // self.step + 1

    def read(self, base: Node) -> Node:
        rank, axis = len(base.shape), self.axis
        count = self._count(base.shape[axis])
        if self.size and self.size <= _MOST_SLICES:
            # the elements of each place within the window, which are slices of the axis, side by side
            cuts = [
                tuple((at, at + (count - 1) * self.step + 1) if a == axis else (0, s) for a, s in enumerate(base.shape))
                for at in range(self.size)
            ]
            steps = tuple(self.step if a == axis else 1 for a in range(rank))
            slices = tuple(Cut(cut, steps).read(base) for cut in cuts)
            return concatenate(tuple(reshape(s, (*s.shape, 1)) for s in slices), rank)
        front = permute(base, (axis, *(a for a in range(rank) if a != axis)))
        shape = (count, self.size)
        start = e.mul(iota(shape, 0, int64), constant(self.step, int64))
        taken = take(front, e.add(start, iota(shape, 1, int64)))
        back = (*range(2, axis + 2), 0, *range(axis + 2, rank + 1), 1)
        return permute(taken, back)

    def write(self, base: Node, value: Node) -> Node:
        if self.step < self.size and self._count(base.shape[self.axis]) > 1:
            raise ViewError(
                f"a write into overlapping windows (at {user_source()}): of {self.size} elements every {self.step} "
                "some are the same. Take a .clone() first."
            )
        return super().write(base, value)

    def layout(self, layout: Layout) -> Layout:
        shape, strides, offset = layout
        sizes = tuple(self._count(s) if a == self.axis else s for a, s in enumerate(shape))
        stepped = tuple(s * self.step if a == self.axis else s for a, s in enumerate(strides))
        return (*sizes, self.size), (*stepped, strides[self.axis]), offset


@dataclass(frozen=True)
class Detach(Movement):
    """The same elements without their history. Written by `Handle._overwrite`, which keeps the base's history."""

    def read(self, base: Node) -> Node:
        return detach(base)

    def write(self, base: Node, value: Node) -> Node:
        return value

    def layout(self, layout: Layout) -> Layout:
        return layout


@dataclass(frozen=True)
class Bytes(Movement):
    """The bytes of elements of one dtype as elements of another."""

    base_dtype: DType
    base_shape: Shape
    dtype: DType
    shape: Shape

    def read(self, base: Node) -> Node:
        return host_call((detach(base),), _reread(self.base_dtype, self.dtype, self.shape), self.shape, self.dtype)

    def write(self, base: Node, value: Node) -> Node:
        back = _reread(self.dtype, self.base_dtype, self.base_shape)
        return host_call((detach(value),), back, self.base_shape, self.base_dtype)

    def layout(self, layout: Layout) -> Layout | None:
        _, strides, offset = layout
        before, after = self.base_dtype.itemsize, self.dtype.itemsize
        if before == after:
            return self.shape, strides, offset
        starts = [stride * before for stride in (*strides[:-1], offset)]
        if strides[-1] != 1 or any(start % after for start in starts):
            return None
        *scaled, offset = (start // after for start in starts)
        return self.shape, (*scaled, 1), offset


@cache
def _reread(before: DType, after: DType, shape: Shape) -> Callable[[np.ndarray], np.ndarray]:
    """The function that reads the bytes of elements of one dtype as elements, of this shape, of another."""

    def reread(values: np.ndarray) -> np.ndarray:
        stored = np.ascontiguousarray(to_storage(values, before))
        return to_carrier(stored.reshape(-1).view(after.storage), after).reshape(shape)

    return reread


class Link:
    """What a view knows of its base. `stamp` tells the value of the base that the view was last read from."""

    __slots__ = ("_base", "_turns", "grad", "is_leaf", "is_weak", "movement", "stamp", "turns")

    def __init__(self, base: Handle, movement: Movement, stamp: object, keeps: bool = False):
        # a detached tensor does not keep alive the history that it was cut off from: `Handle._pass_on` tells it of
        # writes. A leaf that requires a gradient never has one
        self.is_weak = is_detaching(movement) and not (keeps or _is_trained(base))
        self._base: Callable[[], Handle | None] = ref(base) if self.is_weak else lambda: base
        self.movement, self.stamp = movement, stamp
        self.grad = MODE.grad
        #: how often the tensor that has this link was given another shape in place, and how often its base had been
        self.turns, self._turns = 0, _turns(base)
        #: whether the view was made a leaf that requires a gradient of its own
        self.is_leaf = False

    def enlist(self, view: Handle) -> None:
        """Have the base know its `view`, which has this link, if that does not keep it alive."""
        base = self._base()
        if self.is_weak and base is not None:
            readers = base._readers = {} if base._readers is None else base._readers
            key = id(view)
            readers[key] = ref(view, lambda _: readers.pop(key, None))

    def is_of(self, base: Handle) -> bool:
        """Whether the view is still to be read from this very tensor."""
        return self._base() is base and _turns(base) == self._turns

    @property
    def base(self) -> Handle | None:
        """The tensor that the view is of; None where it is gone, so that nobody sees what is written."""
        base = self._base()
        if base is not None and _turns(base) != self._turns:
            raise ViewError(
                f"a view of a tensor that was given another shape in place since (at {user_source()}): take the view "
                "after squeeze_(), t_() and their like, or have them give a new tensor."
            )
        return base


def is_detaching(movement: Movement) -> bool:
    """Whether what is read has no history."""
    return isinstance(movement, Detach) or (isinstance(movement, Chain) and isinstance(movement.parts[-1], Detach))


def _is_trained(tensor: Handle) -> bool:
    return tensor._alias is None and tensor._node.requires_grad and tensor.is_leaf


def _turns(base: Handle) -> int:
    return 0 if base._link is None else base._link.turns


class Way(NamedTuple):
    """How one tensor is had from another: by a movement, or by `.data` where there is none; whether that was recorded
    for differentiation; and whether the view was made a leaf."""

    movement: Movement | None
    grad: bool
    is_leaf: bool


#: from the root to a view, in order; nothing for the root itself
Path = tuple[Way, ...]


def root_of(tensor: Handle) -> tuple[Handle, Path]:
    """The tensor that `tensor` is, in the end, a view of, and the way from there."""
    path: list[Way] = []
    while True:
        link, alias = tensor._link, tensor._alias
        base = None if link is None else link.base
        if alias is not None and alias._storage is tensor._storage:
            path.append(Way(None, True, False))
            tensor = alias
        elif link is not None and base is not None:
            path.append(Way(link.movement, link.grad, link.is_leaf))
            tensor = base
        else:
            return tensor, tuple(reversed(path))


__all__ = [
    "Bytes",
    "Chain",
    "Cut",
    "Detach",
    "Diagonal",
    "Expand",
    "Layout",
    "Link",
    "Movement",
    "Path",
    "Permute",
    "Reshape",
    "Strided",
    "Way",
    "Windows",
    "contiguous_strides",
    "is_detaching",
    "is_row_major",
    "numbers_of",
    "root_of",
]
