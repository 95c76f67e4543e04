"""Rows of reductions, cumulative operations and order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operation_rows import AWKWARD, Row, normal, separated


def _selections() -> Iterator[Row]:
    mask = np.array([[True, False, True], [False, False, True]])
    nothing = (np.zeros((0, 3)), np.zeros((0, 3), bool))
    none_held = (normal(2, 3), np.zeros((2, 3), bool))
    yield Row("masked_select", lambda f, x, m: x.masked_select(m), (normal(2, 3), mask), (nothing, none_held))
    yield Row(
        "masked_select of a transpose, by a mask that broadcasts",
        lambda f, x, m: f.masked_select(x.transpose(0, 1), m),
        (normal(3, 2), mask[1]),
    )
    for name in ("nonzero", "argwhere"):
        operands = ((np.array(AWKWARD).reshape(2, 7),), (np.array(2.0),), (np.zeros((0, 2)),))
        yield Row(name, lambda f, x, name=name: getattr(f, name)(x), (normal(2, 3) > 0,), operands, smooth=False)
    yield Row(
        "nonzero_static",
        lambda f, x: (f.nonzero_static(x, size=2), f.nonzero_static(x, size=9, fill_value=5)),
        (normal(2, 3) > 0,),
        smooth=False,
    )


def _cumulative() -> Iterator[Row]:
    awkward = ((np.array(AWKWARD).reshape(2, 7),), (np.zeros((0, 3)),), (np.zeros((2, 0)),), (np.array(1.5),))
    zeros = np.array([[0.0, 2.0, 0.0, 3.0], [1.5, 0.0, -2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    for axis in (0, -1):
        for name in ("cumsum", "cumprod"):
            expression = lambda f, x, name=name, axis=axis: getattr(x, name)(axis)  # noqa: E731
            # what comes after an infinity is, in the reverse recurrence, infinity times zero
            operands = awkward if name == "cumsum" else awkward[1:]
            yield Row(f"{name} {axis}", expression, (normal(3, 4),), operands, differences=True, sixteen=True)
        for name in ("cummax", "cummin"):
            expression = lambda f, x, name=name, axis=axis: getattr(f, name)(x, axis)  # noqa: E731
            yield Row(f"{name} {axis}", expression, (separated(3, 4),), awkward, sixteen=True)
        yield Row(
            f"logcumsumexp {axis}",
            lambda f, x, axis=axis: f.logcumsumexp(x, axis),
            (normal(3, 4),),
            ((np.array([1e3, -1e3, 999.0, 40.0]),), *awkward[1:]),
            differences=True,
            sixteen=True,
        )
        yield Row(f"prod {axis}", lambda f, x, axis=axis: f.prod(x, axis), (normal(3, 4),), awkward[1:], sixteen=True)
    yield Row("cumprod with zeros", lambda f, x: x.cumprod(1), (zeros,), differences=True)
    yield Row("cumprod along a middle axis", lambda f, x: x.cumprod(1), (normal(2, 3, 5),))
    yield Row("cumsum of columns that fill no vector", lambda f, x: x.cumsum(0), (normal(3, 71),))
    for name, numbers in (("no zero", normal(6)), ("one zero", zeros[1]), ("two zeros", zeros[0])):
        yield Row(f"prod with {name}", lambda f, x: x.prod(), (numbers,), differences=True)
    yield Row("prod of many elements", lambda f, x: x.prod(), (np.linspace(0.99, 1.012, 1009),), smooth=False)
    integers = (np.array([[3, -1, 0], [2, 2, 5]]),)
    yield Row(
        "cumulative operations on integers",
        lambda f, x: (x.cumsum(0), x.cumprod(1), *x.cummax(1), *x.cummin(0), x.prod(), (x > 0).cumsum(1), x.diff()),
        integers,
        smooth=False,
    )
    yield Row("cumsum of a transpose", lambda f, x: x.t().cumsum(0), (normal(3, 4),))
    yield Row(
        "diff",
        lambda f, x, y: (x.diff(), x.diff(2, 0), f.diff(x, 1, 0, y, x), f.diff(x, 0), x.diff(9)),
        (normal(3, 4), normal(2, 4)),
    )


ROWS = [*_selections(), *_cumulative()]
