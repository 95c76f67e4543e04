"""Rows of reductions, cumulative operations and order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operation_rows import AWKWARD, INF, NAN, Row, normal, positive, separated


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


def _order() -> Iterator[Row]:
    ties = np.array([[3.0, 1.0, 3.0, -1.0, 1.0], [0.0, -0.0, 2.0, 2.0, 0.0]])
    awkward = ((np.array(AWKWARD).reshape(2, 7),), (ties,), (np.zeros((0, 3)),), (np.array(1.5),))
    for axis in (0, -1):
        for down in (False, True):
            yield Row(
                f"sort {axis} {down}",
                lambda f, x, axis=axis, down=down: (
                    *x.sort(dim=axis, descending=down, stable=True),
                    f.argsort(x, dim=axis, descending=down, stable=True),
                ),
                (separated(3, 5),),
                awkward,
                sixteen=True,
            )
        operand = (separated(3, 5),)
        yield Row(f"topk {axis}", lambda f, x, axis=axis: (*x.topk(2, axis), *x.topk(3, axis, False)), operand)
        yield Row(
            f"kthvalue {axis}",
            lambda f, x, axis=axis: (*x.kthvalue(2, axis), *x.kthvalue(1, axis, True)),
            operand,
        )
        yield Row(f"mode {axis}", lambda f, x, axis=axis: f.mode(x, axis)[0], operand, ((ties,),))
        for name in ("median", "nanmedian"):
            yield Row(
                f"{name} {axis}",
                lambda f, x, name=name, axis=axis: (*getattr(x, name)(axis), getattr(x, name)()),
                operand,
                ((np.array([[1.0, NAN, 2.5, 3.0], [NAN, 0.5, NAN, 7.0]]),), (np.full((2, 3), NAN),)),
            )
        for name in ("quantile", "nanquantile"):
            yield Row(
                f"{name} {axis}",
                lambda f, x, q, name=name, axis=axis: (getattr(x, name)(q, axis), getattr(x, name)(0.3, axis, True)),
                (operand[0], np.array([0.0, 0.33, 0.5, 0.9])),
                ((np.array([[1.0, NAN, 2.5], [NAN, 0.5, 7.0]]), np.array([0.1, 1.0])),),
            )
    for way in ("lower", "higher", "nearest", "midpoint"):
        yield Row(f"quantile {way}", lambda f, x, way=way: f.quantile(x, 0.4, interpolation=way), (separated(7),))
    yield Row(
        "sort of integers and bools",
        lambda f, x, y: (*x.sort(stable=True, dim=0), *y.sort(dim=0, stable=True), f.msort(x)),
        (np.array([5, -3, 5, 2**31 - 1, -(2**31)]), np.array([True, False, True])),
        smooth=False,
    )


def _searches() -> Iterator[Row]:
    edges, values = np.array([-1.0, 0.0, 0.0, 2.0, INF]), np.array([[-INF, -1.0, 0.0], [1.9, INF, NAN]])
    for right in (False, True):
        yield Row(
            f"searchsorted {right}",
            lambda f, s, x, right=right: (
                f.searchsorted(s, x, right=right),
                f.bucketize(x, s, right=right, out_int32=True),
                f.searchsorted(s, 0.0, right=right),
            ),
            (edges, values),
            ((np.zeros(0), values), (edges, np.zeros((2, 0)))),
            smooth=False,
        )
    yield Row(
        "searchsorted in rows",
        lambda f, s, x: f.searchsorted(s, x, side="right"),
        (np.sort(normal(3, 9)), normal(3, 4)),
        smooth=False,
    )
    yield Row(
        "isin",
        lambda f, x, y: (f.isin(x, y), f.isin(x, y[:2], invert=True), f.isin(x, 2.0), f.isin(1.0, y)),
        (np.array([[1.0, 2.0, NAN], [3.0, INF, -0.0]]), np.array([*range(20), NAN, INF]) * 1.0),
        smooth=False,
    )


def _spreads() -> Iterator[Row]:
    constant = ((np.full((2, 3), 0.5),), (np.array([[1.0, NAN], [2.0, 3.0]]),), (np.zeros((0, 2)),), (np.ones((1, 2)),))
    forms = {
        "unbiased": lambda f, x, name: getattr(f, name)(x, False),
        "dim, unbiased, keepdim": lambda f, x, name: getattr(f, name)(x, 0, True, True),
        "correction": lambda f, x, name: getattr(f, name)(x, dim=(0, 1), correction=0, keepdim=True),
        "correction above": lambda f, x, name: getattr(f, name)(x, -1, correction=2),
    }
    for name in ("var", "std", "var_mean", "std_mean"):
        for form, call in forms.items():
            yield Row(
                f"{name} {form}",
                lambda f, x, call=call, name=name: call(f, x, name),
                (normal(2, 3),),
                constant if name == "var" and form == "correction" else (),
                sixteen=name == "std_mean" and form == "correction",
            )


def _sums() -> Iterator[Row]:
    gaps = ((np.array([[1.0, NAN, 3.0], [NAN, 2.0, 0.5]]),), (np.array([[NAN, 2.0], [INF, 1.0]]),), (np.zeros((0, 2)),))
    for name in ("nansum", "nanmean"):
        yield Row(name, lambda f, x, name=name: (getattr(f, name)(x), getattr(x, name)(0, True)), (normal(2, 3),), gaps)
    yield Row(
        "count_nonzero",
        lambda f, x: (f.count_nonzero(x), x.count_nonzero(0), x.count_nonzero((0, 1)), f.norm(x, 0, 1)),
        (np.array([[1.0, 0.0, NAN], [-0.0, 2.0, INF]]),),
        smooth=False,
    )
    yield Row(
        "aminmax",
        lambda f, x: (*f.aminmax(x), *x.aminmax(dim=1, keepdim=True)),
        (separated(2, 3),),
        ((np.array([[1.0, 1.0, 0.5], [NAN, 2.0, 2.0]]),),),
    )
    yield Row("dist", lambda f, x, y: (f.dist(x, y), x.dist(y, 3), x.dist(y, INF)), (normal(2, 3), normal(3)))
    yield Row("renorm", lambda f, x: (x.renorm(2, 0, 1.0), f.renorm(x, 1, -1, 100.0)), (normal(3, 4),))
    yield Row("trace", lambda f, x: f.trace(x), (normal(3, 4),), ((np.zeros((0, 3)),), (np.full((2, 2), INF),)))
    yield Row("sum_to_size", lambda f, x: (x.sum_to_size(3), x.sum_to_size((2, 1))), (normal(2, 3),))
    yield Row(
        "logsumexp of nothing",
        lambda f, x: f.logsumexp(x, 0),
        (np.zeros((0, 3)),),
        ((np.zeros(0),), (np.zeros((2, 0)),)),
    )
    yield Row(
        "logsumexp of integers", lambda f, x: f.logsumexp(x, (0, 1)), (np.array([[1, 2], [3, 900]]),), smooth=False
    )
    yield Row("norm in another dtype", lambda f, x: f.norm(x, 3, -1, dtype=f.float64), (normal(2, 3),))


def _integrals() -> Iterator[Row]:
    for name in ("trapezoid", "cumulative_trapezoid"):
        yield Row(
            name,
            lambda f, y, x, name=name: (
                getattr(f, name)(y),
                getattr(f, name)(y, dx=0.5, dim=0),
                getattr(f, name)(y, x),
                getattr(f, name)(y, x.expand(3, 4), dim=0),
            ),
            (normal(3, 4), np.array([0.0, 0.5, 2.0, 1.0])),
        )
    yield Row("cov", lambda f, x: (f.cov(x), x.cov(correction=0), x[0].cov()), (normal(3, 5),), ((np.ones((2, 1)),),))
    yield Row(
        "cov with weights",
        lambda f, x, k, w: (f.cov(x, fweights=k), x.cov(aweights=w), x.cov(correction=0, fweights=k, aweights=w)),
        (normal(3, 4), np.array([1, 2, 0, 3]), np.array([0.5, 1.0, 2.0, 0.25])),
    )
    yield Row("corrcoef", lambda f, x: (f.corrcoef(x), f.corrcoef(x[0])), (normal(3, 5),), dtypes=("float64",))


def _counts() -> Iterator[Row]:
    values = np.array([[-1.0, 0.0, 0.25, 0.5], [0.99, 1.0, 7.0, 0.5]])
    yield Row(
        "histc",
        lambda f, x: (f.histc(x, 4, 0, 1), x.histc(bins=3), x.histc(5, min=-2, max=2)),
        (values,),
        ((np.zeros(0),), (np.ones(3),)),
        smooth=False,
    )
    yield Row(
        "histogram",
        lambda f, x, w, edges: (
            *f.histogram(x, 4, range=(0.0, 1.0)),
            *x.histogram(3, weight=w, density=True),
            *x.histogram(edges, weight=w),
        ),
        (values, positive(2, 4), np.array([-1.0, 0.0, 0.5, 2.0])),
        smooth=False,
        theirs=lambda f, x, w, edges: (
            *f.histogram(x.detach(), 4, range=(0.0, 1.0)),
            *x.detach().histogram(3, weight=w.detach(), density=True),
            *x.detach().histogram(edges.detach(), weight=w.detach()),
        ),
    )
    yield Row(
        "bincount",
        lambda f, x, w: (f.bincount(x), x.bincount(minlength=9), x.bincount(w)),
        (np.array([1, 0, 4, 1]), np.array([0.5, 1.0, 2.0, 0.25])),
        smooth=False,
        theirs=lambda f, x, w: (f.bincount(x), x.bincount(minlength=9), x.bincount(w.detach())),
    )


ROWS = [
    *_selections(),
    *_cumulative(),
    *_order(),
    *_searches(),
    *_spreads(),
    *_sums(),
    *_integrals(),
    *_counts(),
]
