"""Indices, aliases, host calls and loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pullback.graph.types import float32, int32, int64
from pullback.ops import elementwise as e
from pullback.ops import host
from pullback.ops.body import Closing
from pullback.ops.primitive import iota, parameter
from pullback.ops.scan import final, scan, stacked

from .maker import Family, Known, Maker

OTHERS = Family()


@OTHERS.operation(1)
def _indices(make: Maker) -> Known:
    shape = make.shape()
    if not shape:
        return make.leaf((), int64)
    dtype = make.choose((int64, int64, float32, int32))
    return Known(iota(shape, make.below(len(shape)), dtype), 17.0)


@OTHERS.operation(1)
def _aliases(make: Maker) -> Known:
    x = make.operand()
    custom = lambda n: host.custom(n, (n,), lambda node, cotangent: [cotangent])  # noqa: E731
    several = lambda n: host.result(host.several((n, n), (n,), lambda node, cotangents: [*cotangents.values()]), 1)  # noqa: E731
    build = make.choose((e.copy, host.identity, host.detach, custom, several))
    return replace(x, node=build(x.node))


def _reversed_signs(array: np.ndarray) -> np.ndarray:
    return -array


@OTHERS.operation(1)
def _host_calls(make: Maker) -> Known:
    x = make.operand(2)
    return replace(x, node=host.host_call((x.node,), _reversed_signs, x.shape, x.dtype))


@OTHERS.operation(1)
def _loops(make: Maker) -> Known:
    """The greatest so far along the first axis, forwards or backwards: what is carried in, out, or left at the end."""
    x = make.operand(1, 2)
    if not x.shape or x.shape[0] == 0:
        return x
    carry, row = (parameter(-1, x.shape[1:], x.dtype) for _ in range(2))
    start = make.leaf(x.shape[1:], x.dtype, finite=True)
    closing = Closing([carry], [row])
    next_ = closing.take([e.maximum(carry, row)])
    others = closing.take([e.minimum(carry, row)])
    body = closing.body(next_, others, [start.node])
    loop = scan(body, [start.node], [x.node], list(closing.captured), x.shape[0], make.chance(0.5))
    results = (*(stacked(loop, value) for value in (body.parameters[0], *next_, *others)), final(loop, 0))
    scale = None if x.scale is None or start.scale is None else max(x.scale, start.scale)
    return replace(x, node=make.choose(results), size=max(x.size, start.size), scale=scale)
