"""Operations that move elements."""

from __future__ import annotations

import math
from dataclasses import replace

from pullback.graph.node import Node
from pullback.ops import movement

from .maker import LARGEST, Family, Known, Maker, joined

MOVEMENT = Family()


@MOVEMENT.operation(7)
def _movements(make: Maker) -> Known:
    x = make.operand()
    return replace(x, node=make.choose((_reshaped, _permuted, _expanded, _sliced, _padded, _flipped))(make, x.node))


def _reshaped(make: Maker, x: Node) -> Node:
    sizes = list(x.shape)
    if len(sizes) > 1 and make.chance(0.5):
        at = make.below(len(sizes) - 1)
        sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
    elif sizes and make.chance(0.6):
        at = make.below(len(sizes))
        factors = [d for d in range(1, sizes[at] + 1) if sizes[at] % d == 0]
        if factors:
            factor = make.choose(factors)
            sizes[at : at + 1] = [factor, sizes[at] // factor]
    else:
        sizes.insert(make.below(len(sizes) + 1), 1)
    return movement.reshape(x, tuple(sizes)) if len(sizes) < 6 else x


def _permuted(make: Maker, x: Node) -> Node:
    return movement.permute(x, tuple(int(a) for a in make.random.permutation(len(x.shape))))


def _expanded(make: Maker, x: Node) -> Node:
    shape = tuple(make.dimension() if size == 1 else size for size in x.shape)
    shape = (make.dimension(), *shape) if make.chance(0.3) and len(shape) < 5 else shape
    return movement.expand(x, shape) if math.prod(shape) <= LARGEST else x


def _sliced(make: Maker, x: Node) -> Node:
    bounds = []
    for size in x.shape:
        start = make.below(size + 1) if make.chance(0.4) else 0
        stop = start + make.below(size - start + 1) if make.chance(0.4) else size
        bounds.append((start, max(start, stop)))
    return movement.slice_(x, tuple(bounds))


def _padded(make: Maker, x: Node) -> Node:
    widths = tuple((make.below(3), make.below(3)) if make.chance(0.5) else (0, 0) for _ in x.shape)
    grown = math.prod(low + size + high for size, (low, high) in zip(x.shape, widths, strict=True))
    return movement.pad(x, widths) if grown <= LARGEST else x


def _flipped(make: Maker, x: Node) -> Node:
    return movement.flip(x, make.axes(len(x.shape)))


@MOVEMENT.operation(2)
def _concatenated(make: Maker) -> Known:
    x = make.operand()
    if not x.shape or 3 * math.prod(x.shape) > LARGEST:
        return x
    axis = make.below(len(x.shape))
    others = [
        k
        for k in make.pool
        if k.dtype is x.dtype
        and len(k.shape) == len(x.shape)
        and all(a == b for i, (a, b) in enumerate(zip(k.shape, x.shape, strict=True)) if i != axis)
        and math.prod(k.shape) <= LARGEST // 3
    ]
    parts = [x, make.choose(others) if others else x]
    if make.chance(0.5):
        parts.append(make.leaf(tuple(2 if i == axis else s for i, s in enumerate(x.shape)), x.dtype))
    if make.chance(0.5):
        parts.reverse()
    node = movement.concatenate(tuple(p.node for p in parts), axis)
    return joined(node, parts)
