"""Comparing tensors in tests: `assert_close`, as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .graph.types import DType, float64, to_carrier
from .ops.primitive import user_source
from .tensor import Tensor
from .tensor.creation import tensor
from .tensor.promotion import result_type

#: the relative and absolute differences that are let pass, by dtype; nothing for what is exact
_TOLERANCES = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


class _Rules(NamedTuple):
    """The options of one comparison."""

    rtol: float | None
    atol: float | None
    equal_nan: bool
    check_dtype: bool
    check_stride: bool
    allow_subclasses: bool


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raise AssertionError unless `actual` and `expected` agree: |actual - expected| <= atol + rtol * |expected|.

    They are tensors, NumPy arrays, numbers, or sequences and mappings of them. Without tolerances those of the coarser
    dtype are taken: 1.3e-6 and 1e-5 of float32, 1e-7 and 1e-7 of float64, 1e-3 and 1e-5 of float16, 1.6e-2 and 1e-5 of
    bfloat16, nothing of integers. Shapes must be equal, and dtypes with `check_dtype`; `check_device` and
    `check_layout` always hold, since there is one of each. `msg` takes the place of the message, or is made of it.

    >>> pb.testing.assert_close(pb.tensor([1.0, 2.0]), pb.tensor([1.0, 2.000001]))
    >>> pb.testing.assert_close(pb.tensor([1.0, 2.0]), pb.tensor([1.0, 2.5]), atol=0.1, rtol=0)
    Traceback (most recent call last):
    AssertionError: Tensors are not close: 1 of 2 elements (50.0%) differ by more than 0.1 + 0 * |expected|
    the greatest difference is 0.5, at [1]: 2.0 where 2.5 was expected
    the greatest relative difference is 0.2, at [1]
    """
    if (rtol is None) != (atol is None):
        raise ValueError(f"assert_close: give both rtol and atol, or neither (at {user_source()})")
    rules = _Rules(rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses)
    problem = _problem(actual, expected, rules, "")
    if problem is not None:
        raise AssertionError(problem if msg is None else msg(problem) if callable(msg) else msg)


def _problem(actual: Any, expected: Any, rules: _Rules, where: str) -> str | None:
    """What differs, in words; None where nothing does."""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            return f"the keys{where} are {sorted(map(str, actual))}, not {sorted(map(str, expected))}"
        pairs = [(repr(key), actual[key], expected[key]) for key in expected]
    elif _is_listed(actual) and _is_listed(expected):
        if len(actual) != len(expected):
            return f"there are {len(actual)} values{where}, not {len(expected)}"
        pairs = [(str(place), *pair) for place, pair in enumerate(zip(actual, expected, strict=True))]
    else:
        return _difference(actual, expected, rules, where)
    found = (_problem(one, other, rules, f"{where} at {place}") for place, one, other in pairs)
    return next((problem for problem in found if problem is not None), None)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _difference(actual: Any, expected: Any, rules: _Rules, where: str) -> str | None:
    if actual is None or expected is None:
        return None if actual is expected else f"{actual!r} is not {expected!r}{where}"
    if not rules.allow_subclasses and type(actual) is not type(expected):
        return f"the types are {type(actual).__name__} and {type(expected).__name__}{where}"
    x, y = _tensor(actual, where), _tensor(expected, where)
    if x.shape != y.shape:
        return f"the shapes{where} differ: {list(x.shape)} and {list(y.shape)}"
    if rules.check_dtype and x.dtype is not y.dtype:
        return f"the dtypes{where} differ: {x.dtype.name} and {y.dtype.name}"
    if rules.check_stride and x.stride() != y.stride():
        return f"the strides{where} differ: {x.stride()} and {y.stride()}"
    return _unequal(x, y, rules, where)


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (int, float, np.ndarray, np.generic)):
        return tensor(value, dtype=float64 if isinstance(value, float) else None)
    raise TypeError(
        f"assert_close compares tensors, arrays, numbers, and what holds them, got {type(value).__name__}{where} "
        f"(at {user_source()})"
    )


def _wide(value: Tensor) -> np.ndarray:
    carried = to_carrier(value._array(), value.dtype)
    return carried.astype(np.float64) if value.dtype.is_floating_point else carried


def _unequal(x: Tensor, y: Tensor, rules: _Rules, where: str) -> str | None:
    rtol, atol = _tolerances(x.dtype, y.dtype) if rules.rtol is None else (rules.rtol, rules.atol)
    assert rtol is not None and atol is not None
    is_float = result_type(x, y).is_floating_point
    got, wanted = _wide(x), _wide(y)
    if not is_float and rtol == atol == 0:
        close = got == wanted
    else:
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(all="ignore"):
            close = np.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=rules.equal_nan)
    if np.all(close):
        return None
    return _described(np.asarray(got, np.float64), np.asarray(wanted, np.float64), close, (rtol, atol), where)


def _tolerances(*dtypes: DType) -> tuple[float, float]:
    found = [_TOLERANCES.get(dtype.name, (0.0, 0.0)) for dtype in dtypes]
    return max(rtol for rtol, _ in found), max(atol for _, atol in found)


def _described(
    got: np.ndarray, wanted: np.ndarray, close: np.ndarray, tolerances: tuple[float, float], where: str
) -> str:
    with np.errstate(all="ignore"):
        absolute = np.where(close, 0.0, np.abs(got - wanted))
        relative = np.where(close, 0.0, absolute / np.abs(wanted))
    count, rtol, atol = int(np.sum(~close)), *tolerances
    worst, worst_relative = (np.unravel_index(int(np.argmax(d)), d.shape) for d in (absolute, relative))
    share = f"{count} of {close.size} elements ({100 * count / close.size:.1f}%)"
    return (
        f"Tensors{where} are not close: {share} differ by more than {atol:g} + {rtol:g} * |expected|\n"
        f"the greatest difference is {absolute[worst]:g}, at {_place(worst)}: {got[worst]} where {wanted[worst]} was "
        f"expected\nthe greatest relative difference is {relative[worst_relative]:g}, at {_place(worst_relative)}"
    )


def _place(index: tuple[Any, ...]) -> list[int]:
    return [int(i) for i in index]


__all__ = ["assert_close"]
