"""What random graphs are made with: nodes, what is known of each, choices, and families of operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pullback.graph import types
from pullback.graph.node import Node
from pullback.graph.types import DType, bfloat16, bool_, float16, float32, float64, int32, int64, uint8, uint32
from pullback.ops import elementwise as e
from pullback.ops import indexing
from pullback.ops.primitive import buffer_node, constant, iota
from pullback.runtime.buffers import Buffer

Shape = tuple[int, ...]
#: elements of the largest value
LARGEST = 3000
#: a step over which no value and no error may grow
MOST, WORST = 1e4, 1e-2
#: units in the last place that one elementary function may be off
SLACK = 8
PRECISION = {float32: 2.0**-23, float64: 2.0**-50, float16: 2.0**-10, bfloat16: 2.0**-7}
_EXACT_BITS = {float32: 22, float64: 48}


@dataclass(frozen=True)
class Known:
    """A node, and what is known of its values.

    `size` bounds the finite absolute values; `error` bounds the difference of two right results; `scale` is the s for
    which all values are multiples of 2**-s, where they are exact; `finite` tells that no value is infinite or NaN.
    """

    node: Node
    size: float
    error: float = 0.0
    scale: int | None = 0
    finite: bool = True

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def exact(self) -> bool:
        return self.error == 0.0


class Maker:
    """The nodes made so far, and the choices, all drawn from one generator."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.pool: list[Known] = []

    # ---- choices

    def below(self, count: int) -> int:
        return int(self.random.integers(count))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def choose(self, options: Any) -> Any:
        return options[self.below(len(options))]

    def dimension(self) -> int:
        """A size from 0 to 17: often 1 or a size around a vector's, seldom 0."""
        return int(self.choose((1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, self.below(18), self.below(18))))

    def shape(self, most: int = LARGEST) -> Shape:
        shape: Shape = ()
        for _ in range(self.choose((0, 1, 1, 2, 2, 3, 3, 4))):
            size = self.dimension()
            if math.prod(shape) * size <= most:
                shape = (*shape, size)
        return shape

    def axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(rank) if self.chance(0.5))

    # ---- leaves

    def leaf(self, shape: Shape, dtype: DType, finite: bool = False) -> Known:
        """Values in memory; floats are multiples of 1/4, now and then with infinities and NaN unless `finite`."""
        if dtype is bool_:
            return self._held(self.random.random(shape) < 0.5, dtype, 1.0)
        if dtype.category == types.INTEGER:
            low = 0 if dtype in (uint8, uint32) else -9
            return self._held(self.random.integers(low, 10, shape), dtype, 9.0)
        values = self.random.integers(-16, 17, shape) / 4
        special = self.chance(0.1) and not finite
        if special:
            where = self.random.random(shape) < 0.1
            values = np.where(where, self.random.choice([np.inf, -np.inf, np.nan, -0.0], shape), values)
        return replace(self._held(values, dtype, 4.0), scale=2, finite=not special)

    def _held(self, values: np.ndarray, dtype: DType, size: float) -> Known:
        array = np.asarray(values, dtype.storage, order="C")
        return Known(buffer_node(Buffer.of(array, copy=True), array.shape, dtype), size)

    def index(self, shape: Shape, size: int) -> Known:
        """int64 numbers from 0 to size - 1, in memory or computed."""
        if size > 1 and self.chance(0.3):
            place = iota(shape, self.below(len(shape)), int64) if shape else constant(1, int64)
            return Known(e.remainder(e.mul(place, constant(7, int64)), constant(size, int64)), float(size))
        held = self._held(self.random.integers(0, max(size, 1), shape), int64, float(size))
        checked = self.chance(0.5)
        return replace(held, node=indexing.bounded(held.node, 0, size, "index") if checked else held.node)

    def number(self, like: Known) -> Known:
        """A number known when the graph is built."""
        if like.dtype is bool_:
            return Known(constant(self.chance(0.5), bool_), 1.0)
        value = self.below(7) if like.dtype in (uint8, uint32) else self.below(13) - 6
        scaled = value / 2 if like.dtype.is_floating_point else value
        return Known(constant(scaled, like.dtype), abs(scaled), scale=1)

    # ---- operands

    def operand(self, *categories: int, exact: bool = False, finite: bool = False) -> Known:
        """A node made before, of a dtype in the categories, or a new leaf where none fits."""
        fitting = [
            k
            for k in self.pool
            if k.dtype.category in (categories or (0, 1, 2))
            and k.dtype is not uint32
            and (k.exact or not exact)
            and (k.finite or not finite)
        ]
        # the later ones more often, so that chains grow
        if fitting and self.chance(0.85):
            return fitting[-1 - min(self.below(4), self.below(len(fitting)))]
        by_category = {0: (bool_,), 1: (int64, int64, int32, uint8), 2: (float32, float32, float32, float64)}
        return self.leaf(self.shape(), self.choose(by_category[self.choose(categories or (2, 2, 1, 0))]), finite)

    def partner(self, like: Known, exact: bool = False, finite: bool = False) -> Known:
        """An operand of the same dtype that broadcasts with `like`: one made before, a new leaf, or a number."""
        fitting = [
            k
            for k in self.pool
            if k.dtype is like.dtype and (k.exact or not exact) and (k.finite or not finite) and _meet(k, like)
        ]
        if fitting and self.chance(0.5):
            return self.choose(fitting)
        if self.chance(0.3):
            return self.number(like)
        shape = tuple(1 if self.chance(0.3) else size for size in like.shape)
        return self.leaf(shape[self.below(len(shape) + 1) if self.chance(0.3) else 0 :], like.dtype, finite)


def _meet(a: Known, b: Known) -> bool:
    """Whether two shapes broadcast, and not to something too large."""
    rank = max(len(a.shape), len(b.shape))
    pairs = zip((1,) * (rank - len(a.shape)) + a.shape, (1,) * (rank - len(b.shape)) + b.shape, strict=True)
    listed = list(pairs)
    fits = all(x == y or 1 in (x, y) for x, y in listed)
    return fits and math.prod(y if x == 1 else x for x, y in listed) <= LARGEST


def rounded(node: Node, size: float, error: float, scale: int | None, finite: bool, slack: int = 1) -> Known:
    """A float result: exact where its bits suffice, else with the error of one more rounding."""
    if not node.dtype.is_floating_point:
        return Known(node, min(size, 2.0**63), 0.0, 0, True)
    bits = _EXACT_BITS.get(node.dtype, 0)
    if error == 0.0 and scale is not None and (size == 0.0 or math.log2(max(size, 2.0**-scale)) + scale <= bits):
        return Known(node, size, 0.0, scale, finite)
    return Known(node, size, error + slack * PRECISION[node.dtype] * (size + 1e-30), None, finite)


def joined(node: Node, parts: list[Known]) -> Known:
    scales = [p.scale for p in parts]
    scale = None if None in scales else max(s for s in scales if s is not None)
    return Known(node, max(p.size for p in parts), max(p.error for p in parts), scale, all(p.finite for p in parts))


Operation = Callable[[Maker], Known]


class Family:
    """Operations of one kind in the order in which they stand in their file, each as often as its weight."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def operation(self, weight: int = 1) -> Callable[[Operation], Operation]:
        def enter(function: Operation) -> Operation:
            self.operations += [function] * weight
            return function

        return enter
