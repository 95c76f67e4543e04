"""`pullback.array_api` has every name of the Array API standard, with its arguments, and the standard's meaning."""

import inspect

import numpy as np
import pytest

import pullback as pb
from pullback import array_api as xp
from pullback.errors import DTypeError

strict = pytest.importorskip("array_api_strict")

#: what is not there, and says so
MISSING = {"complex64", "complex128", "fft"}
#: array-api-strict's own, and what it takes beyond 2024.12
ITS_OWN = {"ArrayAPIStrictFlags", "Device", "ModuleType"}
ITS_OWN |= {"get_array_api_strict_flags", "set_array_api_strict_flags", "reset_array_api_strict_flags"}
LINALG = tuple(xp.linalg.__all__)
NAMES = [n for n in dir(strict) if not n.startswith("_") and n not in MISSING | ITS_OWN | {"linalg"}]


def pairs():
    yield from ((name, getattr(xp, name, None), getattr(strict, name)) for name in NAMES)
    yield from ((f"linalg.{n}", getattr(xp.linalg, n, None), getattr(strict.linalg, n, None)) for n in LINALG)


@pytest.mark.parametrize(("name", "ours", "theirs"), list(pairs()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_name_takes_the_standards_arguments(name, ours, theirs):
    assert ours is not None or name == "newaxis", name
    if not inspect.isfunction(theirs):
        return
    mine, wanted = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    keywords = {k for k, p in wanted.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    assert keywords <= set(mine), f"{name} lacks {keywords - set(mine)}"
    places = [p for p in wanted.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = [p for p in mine.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(taken) >= len(places), name


@pytest.mark.parametrize("name", sorted(MISSING))
def test_what_is_missing_is_absent_and_says_so(name):
    assert not hasattr(xp, name)
    with pytest.raises(AttributeError, match="is not there"):
        getattr(xp, name)


X = np.array([[3.0, -1.5, 2.0], [0.5, 4.0, -2.5]])
PLACES = np.array([[3, 1, 2], [1, 3, 3]])
CASES = {
    "sum over no axes": lambda m, x, i: m.sum(x, axis=()),
    "sum of small unsigned integers": lambda m, x, i: m.sum(m.astype(i, m.uint8)),
    "prod over axes": lambda m, x, i: m.prod(x, axis=(0, 1), keepdims=True),
    "var": lambda m, x, i: m.var(x, axis=1),
    "std": lambda m, x, i: m.std(x, axis=0, correction=1),
    "max": lambda m, x, i: m.max(x, axis=(0,)),
    "cumulative_sum": lambda m, x, i: m.cumulative_sum(x, axis=1, include_initial=True),
    "cumulative_prod": lambda m, x, i: m.cumulative_prod(x, axis=0),
    "rank 0 counts": lambda m, x, i: m.add(m.astype(i, m.int8), m.asarray(1)),
    "clip": lambda m, x, i: m.clip(m.astype(i, m.uint8), 2, 200),
    "concat": lambda m, x, i: m.concat([x, x], axis=None),
    "take": lambda m, x, i: m.take(x, m.asarray([2, 0]), axis=1),
    "take_along_axis": lambda m, x, i: m.take_along_axis(x, m.argsort(x, axis=1), axis=1),
    "sort descending": lambda m, x, i: m.sort(x, descending=True),
    "searchsorted": lambda m, x, i: m.searchsorted(m.asarray([1, 2, 3]), i[0, :]),
    "unique": lambda m, x, i: m.unique_all(i).inverse_indices,
    "unique counts": lambda m, x, i: m.unique_counts(i).counts,
    "eye": lambda m, x, i: m.eye(3, 4, k=1),
    "linspace": lambda m, x, i: m.linspace(0, 1, 4, endpoint=False, dtype=m.float64),
    "meshgrid": lambda m, x, i: m.meshgrid(m.arange(2), m.arange(3))[1],
    "matmul": lambda m, x, i: m.matmul(x, m.matrix_transpose(x)),
    "vecdot": lambda m, x, i: m.vecdot(x, x),
    "tensordot": lambda m, x, i: m.tensordot(x, x, axes=2),
    "solve": lambda m, x, i: m.linalg.solve(x[:, :2], x[:, 2]),
    "vector_norm": lambda m, x, i: m.linalg.vector_norm(x, axis=1),
    "trace": lambda m, x, i: m.linalg.trace(x),
    "repeat": lambda m, x, i: m.repeat(i, 2, axis=1),
    "roll": lambda m, x, i: m.roll(x, 1),
    "flip": lambda m, x, i: m.flip(x),
    "where": lambda m, x, i: m.where(x > 0, x, 0.0),
    "sign": lambda m, x, i: m.sign(x),
    "count_nonzero": lambda m, x, i: m.count_nonzero(i, axis=0),
    "diff": lambda m, x, i: m.diff(x, axis=1),
    "moveaxis": lambda m, x, i: m.moveaxis(x, 0, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_dtypes_are_those_of_array_api_strict(case):
    ours = CASES[case](xp, xp.asarray(X), xp.asarray(PLACES))
    theirs = CASES[case](strict, strict.asarray(X), strict.asarray(PLACES))
    wanted = np.asarray(theirs)
    if case not in ("eye",):  # whose default float is float32 here
        assert ours.dtype.name == wanted.dtype.name
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-10)


def test_array_api_compat_finds_the_namespace():
    compat = pytest.importorskip("array_api_compat")
    x = pb.ones(2)
    assert compat.is_array_api_obj(x)
    assert compat.array_namespace(x, x) is xp is x.__array_namespace__(api_version="2024.12")
    with pytest.raises(ValueError, match="is not there"):
        x.__array_namespace__(api_version="1999.01")


def test_dtypes_have_the_standards_kinds():
    assert xp.isdtype(pb.uint16, "unsigned integer")
    assert not xp.isdtype(pb.uint16, ("signed integer", "bool"))
    assert xp.can_cast(pb.int8, pb.int16)
    assert not xp.can_cast(pb.int16, pb.uint32)
    assert xp.finfo(pb.float32).dtype is pb.float32
    assert set(xp.__array_namespace_info__().dtypes(kind="real floating")) == {"float32", "float64"}
    with pytest.raises(DTypeError, match="complex"):
        xp.asarray(1j)
