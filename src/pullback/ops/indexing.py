"""Indexing by data: rows taken, added to and written at places that an integer tensor names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, IndexOutOfRange, PullbackError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType, bool_, int64, round_to
from .elementwise import add, bit_not, convert, mul
from .movement import expand, reshape
from .primitive import INDEXING, Primitive, apply, constant, iota, register, user_source


def _check_index(name: str, index: Node) -> None:
    if index.dtype is not int64:
        raise DTypeError(f"{name}: the index must be int64, got {index.dtype.name} (at {user_source()})")


def _infer_take(x: Node, index: Node) -> tuple[Shape, DType]:
    _check_index("take", index)
    return (*index.shape, *x.shape[1:]), x.dtype


def _infer_scatter(index: Node, rows: Node, *, size: int) -> tuple[Shape, DType]:
    _check_index("scatter_add", index)
    if rows.shape[: len(index.shape)] != index.shape:
        raise ShapeError(f"scatter_add: rows {list(rows.shape)} do not begin with the index's {list(index.shape)}")
    return (size, *rows.shape[len(index.shape) :]), rows.dtype


def _infer_put(x: Node, index: Node, rows: Node) -> tuple[Shape, DType]:
    _check_index("put", index)
    if rows.shape != (*index.shape, *x.shape[1:]) or rows.dtype is not x.dtype:
        raise ShapeError(
            f"put: rows {rows.dtype.name}{list(rows.shape)} do not fit {x.dtype.name}{list(x.shape)} at "
            f"indices {list(index.shape)}"
        )
    return x.shape, x.dtype


def _evaluate_scatter(node: Node, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    result = np.zeros(node.shape, node.dtype.carrier)
    with np.errstate(all="ignore"):
        np.add.at(result, index, rows)
    return round_to(result, node.dtype)


def _evaluate_put(node: Node, x: np.ndarray, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    result = np.array(x)
    flat = index.reshape(-1)
    for place, row in zip(flat, rows.reshape(flat.shape + x.shape[1:]), strict=True):
        result[place] = row
    return result


def _masked_put_pullback(node: Node, cotangent: Node) -> Node:
    """The old value's cotangent: the result's, except where rows were written."""
    rows = node.inputs[2]
    return put(cotangent, node.inputs[1], expand(constant(0.0, rows.dtype), rows.shape))


def out_of_range(node: Node, position: int, value: int) -> PullbackError:
    """The error for a `bounded` node whose input holds `value` at the flat `position`."""
    shape = node.inputs[0].shape if node.inputs else node.shape
    place = [int(i) for i in np.unravel_index(position, shape)] if shape else []
    error = node.attributes.get("error")
    if error is not None:  # of `require`: what is in the message is all there is to say
        return error(f"{node['what']} (first at position {place}; at {node.source})")
    allowed = f"{node['low']} to {node['high'] - 1}" + (f", or {node['ignore']}" if node["ignore"] is not None else "")
    return IndexOutOfRange(f"{node['what']} {value} at position {place} is not in {allowed} (at {node.source})")


def _evaluate_bounded(node: Node, index: np.ndarray) -> np.ndarray:
    bad = (index < node["low"]) | (index >= node["high"])
    if node["ignore"] is not None:
        bad &= index != node["ignore"]
    if bad.any():
        position = int(np.argmax(bad))
        raise out_of_range(node, position, int(np.reshape(index, -1)[position]))
    return index


def _infer_bounded(index: Node, **_: Any) -> tuple[Shape, DType]:
    _check_index("bounded", index)
    return index.shape, index.dtype


#: the index itself, once every element is known to be in [low, high) or equal to `ignore`; `what` names it in the error
BOUNDED = register(Primitive("bounded", INDEXING, _infer_bounded, _evaluate_bounded, (None,)))
#: result[i..., c...] = x[index[i...], c...]; the index is in range: callers see to it with `bounded`
TAKE = register(
    Primitive(
        "take",
        INDEXING,
        _infer_take,
        lambda n, x, index: x[index],
        (lambda n, g: scatter_add(n.inputs[1], g, n.inputs[0].shape[0]), None),
        linear=True,
    )
)
#: result[index[i...], c...] += rows[i..., c...], from zeros, in the order of i
SCATTER_ADD = register(
    Primitive(
        "scatter_add",
        INDEXING,
        _infer_scatter,
        _evaluate_scatter,
        (None, lambda n, g: take(g, n.inputs[0])),
        linear=True,
    )
)
#: x with rows[i..., c...] written at index[i...]; of several rows for one place the last stays
PUT = register(
    Primitive(
        "put",
        INDEXING,
        _infer_put,
        _evaluate_put,
        (_masked_put_pullback, None, lambda n, g: take(g, n.inputs[1])),
        linear=True,
    )
)


def bounded(index: Node, low: int, high: int, what: str, ignore: int | None = None) -> Node:
    """`index` (int64); computing it raises IndexOutOfRange for an element outside [low, high), save `ignore`."""
    return apply(BOUNDED, index, low=low, high=high, what=what, ignore=ignore)


def require(holds: Node, error: type[PullbackError], message: str) -> Node:
    """int64 zeros of the shape of `holds` (bool); computing them raises `error` where `holds` is false.

    A value is tied to the check by a `where` on the zeros, so that whoever computes it computes the check.
    """
    if holds.dtype is not bool_:
        raise DTypeError(f"require: what must hold must be bool, got {holds.dtype.name} (at {user_source()})")
    failed = convert(bit_not(holds), int64)
    return apply(BOUNDED, failed, low=0, high=1, what=message, ignore=None, error=error)


def take(x: Node, index: Node) -> Node:
    """Rows of `x` (its first axis) at `index` (int64, 0 ≤ index < rows)."""
    return apply(TAKE, x, index)


def scatter_add(index: Node, rows: Node, size: int) -> Node:
    """`rows` summed into `size` rows of zeros, each at its index."""
    return apply(SCATTER_ADD, index, rows, size=size)


def put(x: Node, index: Node, rows: Node) -> Node:
    """`x` with `rows` written at `index`."""
    return apply(PUT, x, index, rows)


def flat_index(index: Node, shape: Shape, axis: int) -> Node:
    """The place in the flattened `shape` of element `index` along `axis`; `index` has `shape`'s rank, as in gather."""
    stride, total = 1, None
    for dim in reversed(range(len(shape))):
        here = index if dim == axis else iota(index.shape, dim, int64)
        term = here if stride == 1 else mul(here, constant(stride, int64))
        total = term if total is None else add(term, total)
        stride *= shape[dim]
    return total if total is not None else reshape(index, ())


__all__ = [
    "BOUNDED",
    "PUT",
    "SCATTER_ADD",
    "TAKE",
    "bounded",
    "flat_index",
    "out_of_range",
    "put",
    "require",
    "scatter_add",
    "take",
]
