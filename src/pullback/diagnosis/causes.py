"""How an operation came to a NaN or an infinity, in words, from its operands and its result; and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..graph.node import Node
from ..ops.primitive import ATTENTION, CONTRACTION, ELEMENTWISE, INDEXING, RECURRENCE, REDUCTION

#: the largest finite numbers are told as these
_RANGE = {"float16": "65504", "bfloat16": "3.39e38", "float32": "3.40e38", "float64": "1.80e308"}


class Cause(NamedTuple):
    """How it came about, and what helps."""

    how: str
    mend: str


Rule = Callable[[Node, list[np.ndarray], np.ndarray], Cause | None]

_ZERO = "add a small number to it, or choose by where() BEFORE dividing, so that the gradient has no zero in it either"
_KL_DIV = (
    "give kl_div logarithms of probabilities first, and probabilities as its target, or log_target=True where these "
    "are logarithms too"
)
_LOG = (
    "clamp it from below (.clamp(min=1e-12)), or use log_softmax, logsigmoid or cross_entropy, which need no log of 0"
)


def cause(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause:
    """How `node` came to a NaN (or, where it has none, an infinity)."""
    bad = np.isnan(result) if np.isnan(result).any() else np.isinf(result)
    given = next((i for i, o in enumerate(node.inputs) if _is_nan_number(o, operands[i])), None)
    if given is not None and node.source is not None and node.source.operation == "logdet":
        return Cause(
            "logarithm of a negative determinant", "take slogdet, which gives the sign apart, or mend the matrix"
        )
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
        if node.op.kind == ATTENTION and infinite:
            return _ALL_MASKED
        if infinite and node.op.kind == ELEMENTWISE:
            return Cause(f"{node.op.name} of an infinity", "keep the infinities out of it")
        if infinite:
            return Cause("inf - inf or 0 · inf in a sum", "keep the infinities out of what is summed")
        if node.op.kind not in _SUMMING:
            return Cause("undefined for these operands", "keep the operands inside of where the operation is defined")
    # a NaN that sums make of finite numbers is the difference of infinities that they came to on the way
    return _overflow(node, operands)


#: kinds of operations that add up many numbers
_SUMMING = (CONTRACTION, REDUCTION, RECURRENCE, ATTENTION, INDEXING)


def _overflow(node: Node, operands: list[np.ndarray]) -> Cause:
    name = node.dtype.name
    mends = {
        "float16": "use bfloat16, whose range is that of float32, or scale the values down, or compute this in float32",
        "float64": "scale the values down",
    }
    mend = mends.get(name, "scale the values down, lower the learning rate, or clip the gradients")
    how = f"overflow of {name}, whose largest number is {_RANGE.get(name, 'finite')}{_in_sums(node, operands)}"
    return Cause(how, mend)


def _in_sums(node: Node, operands: list[np.ndarray]) -> str:
    """What was added up where that is told by nothing else."""
    if node.op.kind not in _SUMMING:
        return ""
    sizes = [f"{np.abs(o[np.isfinite(o)]).max(initial=0.0):.3g}" for o in operands if o.dtype.kind == "f"]
    if node.op.kind == CONTRACTION:
        return f", in sums of products of operands up to {' and '.join(sizes)}"
    what = "running sums or products" if node.op.kind == RECURRENCE else "sums"
    return f", in {what} of numbers up to {max(sizes, key=float, default='0')}"


_ALL_MASKED = Cause(
    "softmax over nothing but -inf, which is inf - inf",
    "leave at least one place of every row unmasked, or choose another value by where() for rows that have none",
)


_MASKED_TARGET = Cause(
    "the log-probability of a target is -inf: what masks classes out masks a target out too",
    "see where labels and mask differ, or have such examples take no part (ignore_index)",
)
#: how losses become infinite by an infinity that was put in on purpose
_OF_LOSSES = {
    **dict.fromkeys(("cross_entropy", "nll_loss", "linear_cross_entropy", "kl_div"), _MASKED_TARGET),
    "ctc_loss": Cause(
        "no alignment of the targets has a probability above 0: there are too few steps for them, or a mask leaves "
        "them out",
        "see why, or pass zero_infinity=True, which leaves such examples out",
    ),
}


def cause_of_loss(node: Node) -> Cause | None:
    """How an infinity that was put in on purpose comes into the loss that the node is a part of, if it is of one."""
    return None if node.source is None else _OF_LOSSES.get(node.source.operation)


#: what is divided by how many there are, by the functions that do it: what is said where there are none
_COUNTED = {
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"),
        Cause(
            "division by zero: 0/0, the variance of a single element",
            "take it of more than one, or with correction=0 (unbiased=False), which is 0 there",
        ),
    ),
    **dict.fromkeys(
        ("mean", "nanmean", "l1_loss", "mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
        Cause("division by zero: 0/0, the mean of nothing", "see why nothing is selected, or leave out such a batch"),
    ),
    **dict.fromkeys(
        ("cross_entropy", "nll_loss"),
        Cause(
            "division by zero: 0/0, the mean over no label: all are ignored, or have a weight of 0",
            'leave out such a batch, or take reduction="sum" and divide by the count, at least 1',
        ),
    ),
}


def _div(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    x, y = operands
    if (y == 0).any():
        zero = (x[y == 0] == 0).any()
        called = "" if node.source is None else node.source.operation
        if zero and called in _COUNTED:
            return _COUNTED[called]
        if zero and _is_sum(node.inputs[1]):
            return Cause(
                "division by zero: 0/0, by a sum of nothing but zeros",
                "see whether a mask selects nothing; clamp the count (.clamp(min=1))",
            )
        return Cause("division by zero: 0/0" if zero else "division by zero", _ZERO)
    if (np.isinf(x) & np.isinf(y)).any():
        return Cause("inf / inf", "keep the infinities out of the quotient")
    how, mend = _overflow(node, operands)
    return Cause(how, f"{mend}; the divisor is {np.abs(y).min():.3g}") if (np.abs(y) < 1).any() else Cause(how, mend)


def _is_sum(node: Node) -> bool:
    while node.op.name in ("expand", "reshape", "convert") and node.inputs:
        node = node.inputs[0]
    return node.op.name == "sum"


def _log(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    if node.source is not None and node.source.operation == "logsumexp" and (operands[0] == 0).any():
        return Cause("logsumexp over nothing but -inf, which is -inf", _ALL_MASKED.mend)
    if node.source is not None and node.source.operation == "kl_div" and (operands[0] < 0).any():
        return Cause("logarithm of a negative number, which is in kl_div's target", _KL_DIV)
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
    return _overflow(node, operands)


def _exp(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    largest = operands[0].max()
    mend = "subtract the largest exponent first (softmax, logsumexp do), or clamp the exponent"
    return Cause(f"{node.op.name} of {largest:.4g} overflows {node.dtype.name}", mend)


def _difference(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    if not np.isnan(result).any():
        return _overflow(node, operands)
    if node.source is not None and ("softmax" in node.source.operation or "attention" in node.source.operation):
        if (operands[0] == np.inf).any():
            return Cause(
                "softmax of inf, which is inf - inf", "mask with -inf what is to have no part, and not with inf"
            )
        return _ALL_MASKED
    return Cause("inf - inf", "keep the infinities out of the difference")


def _mul(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    if np.isnan(result).any():
        return Cause("0 · inf", "replace the infinity by where() before multiplying; a mask that multiplies keeps it")
    return _overflow(node, operands)


def _convert(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    return _overflow(node, operands)


def _host(node: Node, operands: list[np.ndarray], result: np.ndarray) -> Cause | None:
    called = "" if node.source is None else node.source.operation
    if called not in ("slogdet", "logdet") or np.isnan(result).any():
        return None
    return Cause(
        "logarithm of the determinant of a singular matrix, which is 0",
        "add a small number to the diagonal (A + 1e-6 * eye(n)), or see why rows or columns depend on each other",
    )


def rounded_to_zero(node: Node, magnitude: float) -> Cause:
    """How an operation came to it in native code alone: 0 where another rounding gives a number near it."""
    what = "division by" if node.op.name == "div" else "logarithm of"
    return Cause(
        f"{what} what rounds to 0 in native code, and to {magnitude:.3g} on the reference", _ZERO,
    )  # fmt: skip


def _remainder(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    return Cause(f"{node.op.name} by zero", _ZERO) if (operands[1] == 0).any() else None


def _pole(node: Node, operands: list[np.ndarray], _: np.ndarray) -> Cause | None:
    """Of functions that are infinite at 0, and some at negative whole numbers."""
    x = operands[-1]
    at = x[(x <= 0) & (x == np.floor(x))]
    return Cause(f"{node.op.name} of {at[0]:g}, where it is infinite", "keep the operand above 0") if at.size else None


def _outside(where: str) -> Rule:
    return lambda node, *_: Cause(f"{node.op.name} outside of {where}", "clamp the operand into it")


_RULES: dict[str, Rule] = {
    "div": _div,
    "floor_divide": _div,
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
    "host_call": _host,
    "remainder": _remainder,
    "fmod": _remainder,
    **dict.fromkeys(
        ("lgamma", "digamma", "polygamma", "bessel_y0", "bessel_y1", "modified_bessel_k0", "modified_bessel_k1"), _pole
    ),
    "asin": _outside("[-1, 1]"),
    "acos": _outside("[-1, 1]"),
    "atanh": _outside("(-1, 1)"),
    "acosh": _outside("[1, inf)"),
    "erfinv": _outside("(-1, 1)"),
    "ndtri": _outside("(0, 1)"),
}

__all__ = ["Cause", "cause", "cause_of_loss", "rounded_to_zero"]
