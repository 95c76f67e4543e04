"""Rows of what moves elements: views, writes into parts, diagonals, windows, scatters of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from operation_rows import Row, normal, positive, separated

_INDEX = [[0, 2, 1, 1], [1, 1, 0, 2]]


def _written(f: Any, x: Any, v: Any) -> Any:
    """`x` with `v` written through views of it."""
    y = x * 1
    y.T[1].mul_(v)
    y[::2, 1:] += v[:2, None] if v.ndim else v
    y.diagonal().copy_(v[:3] ** 2)
    y[f.tensor([0, 1])] = y[f.tensor([1, 0])] * v[0]
    return y


_SHAPES = [
    Row("diagonal", lambda f, x: x.diagonal(1, 0, 2), (normal(4, 2, 3),), ((np.zeros((0, 2, 3)),),), differences=True),
    Row("diag_embed", lambda f, x: f.diag_embed(x, -1, 0, 2), (normal(2, 3),), ((np.zeros((2, 0)),),)),
    Row("windows", lambda f, x: x.unfold(1, 3, 2), (normal(2, 8),), sixteen=True),
    Row("wide windows", lambda f, x: x.unfold(0, 70, 3), (normal(80, 2),)),
    Row("roll", lambda f, x: x.roll((2, -1), (0, 1)), (normal(3, 4),), ((np.zeros((0, 2)),),)),
    Row("rot90", lambda f, x: f.rot90(x, 3, [0, 1]), (normal(2, 3, 2),)),
    Row("repeat_interleave", lambda f, x: x.repeat_interleave(f.tensor([2, 0, 1]), 1), (normal(2, 3),)),
    Row("block_diag", lambda f, x, y: f.block_diag(x, y), (normal(2, 3), normal(4))),
    Row(
        "slice_scatter", lambda f, x, y: x.slice_scatter(y, 1, 1, 7, 3), (normal(2, 7), normal(2, 2)), differences=True
    ),
    Row("writes through views", _written, (normal(3, 4), normal(3)), sixteen=True),
    Row("masked_scatter", lambda f, x, y: x.masked_scatter(x > 0, y), (normal(2, 3), normal(7)), smooth=False),
]


def _scattered(reduce: str, include_self: bool) -> Row:
    def expression(f: Any, x: Any, src: Any) -> Any:
        return x.scatter_reduce(0, f.tensor(_INDEX), src, reduce, include_self=include_self)

    source = np.array([[1.0, 2.0, 2.0, 0.0], [0.0, 3.0, 1.0, 1.0]])
    base = np.array([[1.0, 0.0, 2.0, 1.0], [3.0, 2.0, 0.0, 1.0], [0.0, 1.0, 5.0, 2.0]])
    operands = (separated(3, 4), separated(2, 4)) if reduce[0] == "a" else (positive(3, 4), positive(2, 4))
    return Row(
        f"scatter_reduce {reduce} {include_self}",
        expression,
        operands,
        ((base, source),),
        differences=include_self,
        smooth=reduce[0] != "a",
    )


_SCATTERS = [
    *(_scattered(r, s) for r in ("sum", "prod", "mean", "amax", "amin") for s in (True, False)),
    Row("index_add", lambda f, x, y: x.index_add(1, f.tensor([0, 2, 0]), y, alpha=2), (normal(2, 3), normal(2, 3))),
    Row("index_copy", lambda f, x, y: x.index_copy(1, f.tensor([2, 0]), y), (normal(2, 3), normal(2, 2))),
    Row(
        "index_put accumulate",
        lambda f, x, y: x.index_put((f.tensor([0, 1, 0]), f.tensor([1, 1, 1])), y, accumulate=True),
        (normal(2, 3), normal(3)),
        differences=True,
    ),
    Row("put", lambda f, x, y: x.put(f.tensor([[0, -1]]), y), (normal(2, 3), normal(1, 2))),
    Row("take_along_dim", lambda f, x: f.take_along_dim(x, f.tensor([[1], [-1]]), 1), (normal(2, 3),)),
]

ROWS = [*_SHAPES, *_SCATTERS]
