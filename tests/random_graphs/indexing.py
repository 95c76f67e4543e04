"""Operations on rows that indices name."""

from __future__ import annotations

import math
from dataclasses import replace

from pullback.ops import indexing

from .maker import LARGEST, Family, Known, Maker, joined, rounded

INDEXING = Family()


@INDEXING.operation(3)
def _taken(make: Maker) -> Known:
    x = make.operand()
    if not x.shape or x.shape[0] == 0:
        return x
    shape = make.shape(max(1, LARGEST // max(1, math.prod(x.shape[1:]))))
    return replace(x, node=indexing.take(x.node, make.index(shape, x.shape[0]).node))


@INDEXING.operation(2)
def _scattered(make: Maker) -> Known:
    x = make.operand(1, 2)
    if not x.shape or math.prod(x.shape[1:]) * 17 > LARGEST:
        return x
    lead = 1 + make.below(len(x.shape))
    size = make.dimension() or 1
    if size * math.prod(x.shape[lead:]) > LARGEST:
        return x
    index = make.index(x.shape[:lead], size)
    count = math.prod(x.shape[:lead])
    node = indexing.scatter_add(index.node, x.node, size)
    return rounded(node, x.size * max(count, 1), x.error * count, x.scale, x.finite, 1 + count)


@INDEXING.operation(2)
def _written(make: Maker) -> Known:
    x = make.operand()
    if not x.shape or x.shape[0] == 0:
        return x
    count = make.below(5)
    if count * math.prod(x.shape[1:]) > LARGEST:
        return x
    rows = make.leaf((count, *x.shape[1:]), x.dtype)
    return joined(indexing.put(x.node, make.index((count,), x.shape[0]).node, rows.node), [x, rows])
