"""Comparing tensors in tests: `assert_close`, as PyTorch's, with its rules of what is compared with what."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DomainError
from ..graph.types import to_carrier
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arguments import flag
from ..tensor.creation import tensor
from ..tensor.promotion import result_type

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

    def tolerances(self, *dtypes: str) -> tuple[float, float]:
        """Those that were given, or the coarser of the dtypes' own."""
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        found = [_TOLERANCES.get(dtype, (0.0, 0.0)) for dtype in dtypes]
        return max(rtol for rtol, _ in found), max(atol for _, atol in found)


class _Mismatch(Exception):
    """What differs, in words, and at which item of what holds the values."""

    def __init__(self, text: str, where: tuple[Any, ...] = (), kind: type[Exception] = AssertionError):
        self.text, self.where, self.kind = text, where, kind

    def error(self, msg: str | Callable[[str], str] | None = None) -> Exception:
        """The error that the user sees."""
        if isinstance(msg, str):
            return self.kind(msg)
        item = "".join(str([place]) for place in self.where)
        text = f"{self.text}\n\nThe failure occurred for item {item}" if item else self.text
        return self.kind(text if msg is None else msg(text))


#: two values to compare, and how, and where they stand
_Pair = tuple[Callable[[Any, Any, _Rules], None], Any, Any, tuple[Any, ...]]


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

    They are two tensors, two NumPy arrays, two numbers, two bools, or sequences and mappings of them; TypeError where
    they are one of each. Without tolerances those of the coarser dtype are taken: 1.3e-6 and 1e-5 of float32, 1e-7 and
    1e-7 of float64 and Python's floats, 1e-3 and 1e-5 of float16, 1.6e-2 and 1e-5 of bfloat16, nothing of integers.
    Shapes must be equal, and dtypes (of numbers Python's types) with `check_dtype`; `check_device` and `check_layout`
    always hold, since there is one of each. `msg` takes the place of the message, or is made of it.

    >>> pb.testing.assert_close(pb.tensor([1.0, 2.0]), pb.tensor([1.0, 2.000001]))
    >>> pb.testing.assert_close(pb.tensor([1.0, 2.0]), pb.tensor([1.0, 2.5]), atol=0.1, rtol=0)
    Traceback (most recent call last):
    AssertionError: Tensor-likes are not close!
    <BLANKLINE>
    Mismatched elements: 1 / 2 (50.0%)
    Greatest absolute difference: 0.5 at index (1,) (up to 0.1 allowed)
    Greatest relative difference: 0.2 at index (1,) (up to 0 allowed)
    """
    if (rtol is None) != (atol is None):
        raise ValueError(
            "Both 'rtol' and 'atol' must be either specified or omitted, but got no "
            f"{'rtol' if rtol is None else 'atol'} (at {user_source()})"
        )
    rules = _Rules(rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses)
    try:
        pairs = list(_pairs(actual, expected, rules, ()))
    except _Mismatch as found:
        raise found.error() from None
    for compare, one, other, where in pairs:
        try:
            compare(one, other, rules)
        except _Mismatch as found:
            found.where = where
            raise found.error(msg) from None


def _pairs(actual: Any, expected: Any, rules: _Rules, where: tuple[Any, ...]) -> Iterator[_Pair]:
    """The values that are to be compared, one by one; _Mismatch where two cannot be."""
    if _is_listed(actual) and _is_listed(expected):
        if len(actual) != len(expected):
            raise _Mismatch(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", where)
        for place, pair in enumerate(zip(actual, expected, strict=True)):
            yield from _pairs(*pair, rules, (*where, place))
    elif isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            lists = [sorted(map(str, a.keys() - b.keys())) for a, b in ((expected, actual), (actual, expected))]
            raise _Mismatch(
                f"The keys of the mappings do not match:\nMissing keys in the actual mapping: {lists[0]}\n"
                f"Additional keys in the actual mapping: {lists[1]}",
                where,
            )
        for key in expected:
            yield from _pairs(actual[key], expected[key], rules, (*where, key))
    else:
        yield (*_comparable(actual, expected, rules, where), where)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _comparable(actual: Any, expected: Any, rules: _Rules, where: tuple[Any, ...]) -> Any:
    """How two values are compared, and the two of one kind."""
    both = actual, expected
    if actual is None or expected is None:
        return _compare_with_none, actual, expected
    if all(isinstance(value, (bool, np.bool_)) for value in both):
        return _compare_bools, bool(actual), bool(expected)
    if all(isinstance(v, (int, float, complex, np.number)) and not isinstance(v, bool) for v in both):
        return _compare_numbers, *(v.item() if isinstance(v, np.number) else v for v in both)
    related = isinstance(actual, type(expected)) or isinstance(expected, type(actual))
    if related and (rules.allow_subclasses or type(actual) is type(expected)):
        tensors = [_tensor(value) for value in both]
        if tensors[0] is not None and tensors[1] is not None:
            return _compare_tensors, *tensors
    raise _Mismatch(
        f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.", where, TypeError
    )


def _tensor(value: Any) -> Tensor | None:
    """A tensor of the value; None where it is nothing that there are tensors of."""
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value)
    return tensor(array) if array.dtype.kind in "biuf" else None


def _compare_with_none(actual: Any, expected: Any, rules: _Rules) -> None:
    if actual is not expected:
        raise _Mismatch(f"None mismatch: {actual} is not {expected}")


def _compare_bools(actual: bool, expected: bool, rules: _Rules) -> None:
    if actual is not expected:
        raise _Mismatch(f"Booleans mismatch: {actual} is not {expected}")


def _compare_numbers(actual: Any, expected: Any, rules: _Rules) -> None:
    if rules.check_dtype and type(actual) is not type(expected):
        raise _Mismatch(f"The (d)types do not match: {type(actual)} != {type(expected)}.")
    if actual == expected or (rules.equal_nan and cmath.isnan(actual) and cmath.isnan(expected)):
        return
    kinds = ["int64" if isinstance(value, int) else "float64" for value in (actual, expected)]
    rtol, atol = rules.tolerances(*kinds)
    if not (cmath.isfinite(actual - expected) and abs(actual - expected) <= atol + rtol * abs(expected)):
        raise _Mismatch(_of_scalars(actual, expected, rtol, atol))


def _compare_tensors(x: Tensor, y: Tensor, rules: _Rules) -> None:
    compared = {
        "shape": (x.shape, y.shape),
        "stride()": (x.stride(), y.stride()) if rules.check_stride else (),
        "dtype": (x.dtype, y.dtype) if rules.check_dtype else (),
    }
    for name, values in compared.items():
        if values and values[0] != values[1]:
            raise _Mismatch(f"The values for attribute {name!r} do not match: {values[0]} != {values[1]}.")
    rtol, atol = rules.tolerances(x.dtype.name, y.dtype.name)
    if rtol < 0 or atol < 0:
        raise DomainError(
            f"assert_close: rtol and atol must not be negative, got {rtol} and {atol} (at {user_source()})"
        )
    equal_nan = flag(rules.equal_nan, "assert_close", "equal_nan")
    got, wanted = _wide(x), _wide(y)
    if result_type(x, y).is_floating_point or rtol or atol:
        with np.errstate(all="ignore"):
            close = np.isclose(got.astype(float), wanted.astype(float), rtol=rtol, atol=atol, equal_nan=equal_nan)
    else:
        close = got == wanted
    if not np.all(close):
        if x.ndim:
            raise _Mismatch(_of_tensors(got, wanted, close, rtol, atol))
        raise _Mismatch(_of_scalars(got.item(), wanted.item(), rtol, atol))


def _wide(value: Tensor) -> np.ndarray:
    carried = to_carrier(value._array(), value.dtype)
    wide = np.dtype(np.float64 if value.dtype.is_floating_point else np.int64)
    return carried if value.dtype.name == "uint64" else carried.astype(wide)


def _of_scalars(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    absolute = abs(actual - expected)
    relative = absolute / abs(expected) if expected else float("inf")
    lines = [f"Scalars are not {_what(rtol, atol)}!\n", f"Expected {expected} but got {actual}."]
    lines.append(f"Absolute difference: {absolute}{_allowed(atol, rtol, atol)}")
    lines.append(f"Relative difference: {relative}{_allowed(rtol, rtol, atol)}")
    return "\n".join(lines)


def _of_tensors(got: np.ndarray, wanted: np.ndarray, close: np.ndarray, rtol: float, atol: float) -> str:
    with np.errstate(all="ignore"):
        absolute = np.where(close, 0, np.where(got > wanted, got - wanted, wanted - got))
        relative = np.where(close, 0.0, absolute / np.abs(wanted))
    count = int(np.sum(~close))
    lines = [f"Tensor-likes are not {_what(rtol, atol)}!\n"]
    lines.append(f"Mismatched elements: {count} / {close.size} ({count / close.size:.1%})")
    for name, difference, allowed in (("absolute", absolute, atol), ("relative", relative, rtol)):
        place = np.unravel_index(int(np.argmax(difference)), difference.shape)
        index = tuple(int(i) for i in place)
        greatest = difference[place].item()
        lines.append(f"Greatest {name} difference: {greatest} at index {index}{_allowed(allowed, rtol, atol)}")
    return "\n".join(lines)


def _what(rtol: float, atol: float) -> str:
    return "equal" if rtol == atol == 0 else "close"


def _allowed(tolerance: float, rtol: float, atol: float) -> str:
    return "" if rtol == atol == 0 else f" (up to {tolerance} allowed)"
