"""How an operation came to a NaN or an infinity, in words, from its operands and its result; and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..graph.node import Node

#: the largest finite numbers are told as these
_RANGE = {"float16": "65504", "bfloat16": "3.39e38", "float32": "3.40e38", "float64": "1.80e308"}


class Cause(NamedTuple):
    """How it came about, and what helps."""

    how: str
    mend: str


Rule = Callable[[Node, list[np.ndarray], np.ndarray], Cause | None]

_ZERO = "add a small number to it, or choose by where() BEFORE dividing, so that the gradient has no zero in it either"
_LOG = (
    "clamp it from below (.clamp(min=1e-12)), or use log_softmax, logsigmoid or cross_entropy, which need no log of 0"
)


def cause(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause:
    """How `node` came to a NaN (or, where it has none, an infinity)."""
    bad = np.isnan(result) if np.isnan(result).any() else np.isinf(result)
    given = next((i for i, o in enumerate(node.inputs) if _is_nan_number(o, operands[i])), None)
    if given is not None:
        return Cause("a constant that is NaN", "leave the constant out of what the loss depends on")
    picked = _at(bad, operands) if node.op.kind == "elementwise" else operands
    rule = _RULES.get(node.op.name)
    found = None if rule is None else rule(node, picked, result[bad])
    return found or _general(node, operands, result)


def _is_nan_number(node: Node, value: np.ndarray) -> bool:
    while node.op.name in ("expand", "reshape", "permute", "convert") and node.buffer is None:
        node = node.inputs[0]
    return node.op.name == "constant" and bool(np.isnan(value).any())


def _at(bad: np.ndarray, operands: list[np.ndarray]) -> list[np.ndarray]:
    """The operands' elements from which the bad ones were made."""
    return [np.broadcast_to(operand, bad.shape)[bad] for operand in operands]


def _general(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause:
    infinite = [o for o in operands if o.dtype.kind == "f" and np.isinf(o).any()]
    if np.isnan(result).any():
        if node.op.kind == "attention" and infinite:
            return _ALL_MASKED
        if infinite:
            return Cause("inf - inf or 0 · inf in a sum", "keep the infinities out of what is summed")
        return Cause("undefined for these operands", "keep the operands inside of where the operation is defined")
    return _overflow(node)


def _overflow(node: Node) -> Cause:
    name = node.dtype.name
    mends = {
        "float16": "use bfloat16, whose range is that of float32, or scale the values down, or compute this in float32",
        "float64": "scale the values down",
    }
    mend = mends.get(name, "scale the values down, lower the learning rate, or clip the gradients")
    return Cause(f"overflow of {name}, whose largest number is {_RANGE.get(name, 'finite')}", mend)


_ALL_MASKED = Cause(
    "softmax over nothing but -inf, which is inf - inf",
    "leave at least one place of every row unmasked, or choose another value by where() for rows that have none",
)


def _div(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    x, y = operands
    if (y == 0).any():
        zero = (x[y == 0] == 0).any()
        return Cause("division by zero: 0/0" if zero else "division by zero", _ZERO)
    if (np.isinf(x) & np.isinf(y)).any():
        return Cause("inf / inf", "keep the infinities out of the quotient")
    return _overflow(node)


def _log(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    x = operands[0] + (1 if node.op.name == "log1p" else 0)
    if (x < 0).any():
        return Cause("logarithm of a negative number", _LOG)
    return Cause("logarithm of zero", _LOG) if (x == 0).any() else None


def _sqrt(_: Node, operands: list[np.ndarray], __: np.ndarray) -> Cause | None:
    mend = "clamp it from below; rounding can bring what is never negative on paper below 0"
    return Cause("square root of a negative number", mend) if (operands[0] < 0).any() else None


def _pow(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    base, exponent = operands
    if np.isnan(result).any():
        return Cause("power of a negative number with an exponent that is not whole", "take the power of .abs()")
    if ((base == 0) & (exponent < 0)).any():
        return Cause("division by zero: a negative power of zero", _ZERO)
    return _overflow(node)


def _exp(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    largest = operands[0].max()
    mend = "subtract the largest exponent first (softmax, logsumexp do), or clamp the exponent"
    return Cause(f"{node.op.name} of {largest:.4g} overflows {node.dtype.name}", mend)


def _difference(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    if not np.isnan(result).any():
        return _overflow(node)
    if node.source is not None and "softmax" in node.source.operation:
        return _ALL_MASKED
    return Cause("inf - inf", "keep the infinities out of the difference")


def _mul(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    if np.isnan(result).any():
        return Cause("0 · inf", "replace the infinity by where() before multiplying; a mask that multiplies keeps it")
    return _overflow(node)


def _convert(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    return _overflow(node)


def _outside(where: str) -> Rule:
    return lambda node, *_: Cause(f"{node.op.name} outside of {where}", "clamp the operand into it")


_RULES: dict[str, Rule] = {
    "div": _div,
    "log": _log,
    "log2": _log,
    "log10": _log,
    "log1p": _log,
    "sqrt": _sqrt,
    "pow": _pow,
    "exp": _exp,
    "exp2": _exp,
    "expm1": _exp,
    "sinh": _exp,
    "cosh": _exp,
    "add": _difference,
    "sub": _difference,
    "mul": _mul,
    "convert": _convert,
    "asin": _outside("[-1, 1]"),
    "acos": _outside("[-1, 1]"),
    "atanh": _outside("(-1, 1)"),
    "acosh": _outside("[1, inf)"),
    "erfinv": _outside("(-1, 1)"),
    "ndtri": _outside("(0, 1)"),
}

__all__ = ["Cause", "cause"]
