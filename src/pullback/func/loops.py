"""scan: a loop over the steps of a sequence, recorded once whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.loops import repeat
from ..trees import flatten, unflatten


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Carry a value through the steps of a sequence, as jax.lax.scan: returns (the last carry, all y stacked).

    `f(carry, x)` gives `(carry, y)`; it is called once, to be recorded, and compiled once, whatever the number of
    steps. `init`, `xs`, and what `f` gives are tensors, or nested tuples, lists and dicts of tensors and None. The
    first axis of everything in `xs` is the steps; `length` says their number where `xs` is None. The carry keeps its
    shapes and dtypes. With `reverse` the steps are taken from the last to the first; y are stacked in the order of
    `xs` even so.

    The gradient is a scan too: of each step it keeps what cannot be computed again cheaply. A generator that draws in
    `f` draws anew at each step.

    Raises ShapeError and DTypeError where the carry changes its kind or lengths differ, TypeError for other leaves.

    >>> pb.func.scan(lambda total, x: (total + x, total * x), pb.tensor(0.0), pb.tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 2., 9.]))
    """
    starts, carry_shape = flatten(init)
    operands, xs_shape = flatten(xs)
    start_tensors, operand_tensors = _tensors(starts, "init"), _tensors(operands, "xs")
    steps = _length(operand_tensors, length)
    given: dict[str, Any] = {}

    def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        result = f(_filled(carry_shape, starts, carries), _filled(xs_shape, operands, slices))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"scan: f must return a pair (carry, y), got {type(result).__name__} (at {user_source()})")
        next_, next_shape = flatten(result[0])
        given["leaves"], given["shape"] = flatten(result[1])
        if next_shape != carry_shape or [leaf is None for leaf in next_] != [leaf is None for leaf in starts]:
            raise TypeError(f"scan: f must return a carry nested as `init` is (at {user_source()})")
        return _tensors(next_, "the carry that f returns"), _tensors(given["leaves"], "the y that f returns")

    finals, stacks = repeat(step, start_tensors, operand_tensors, steps, reverse)
    return _filled(carry_shape, starts, finals), _filled(given["shape"], given["leaves"], stacks)


def _tensors(leaves: list[Any], what: str) -> list[Tensor]:
    for leaf in leaves:
        if leaf is not None and not isinstance(leaf, Tensor):
            raise TypeError(
                f"scan: {what} must be made of tensors, got {type(leaf).__name__} (at {user_source()}); "
                "use pb.tensor(...)"
            )
    return [leaf for leaf in leaves if leaf is not None]


def _filled(shape: Any, leaves: list[Any], tensors: list[Tensor]) -> Any:
    """The tree of that shape with `tensors` in place of all leaves but None."""
    rest = iter(tensors)
    return unflatten(shape, [None if leaf is None else next(rest) for leaf in leaves])


def _length(operands: list[Tensor], length: int | None) -> int:
    for operand in operands:
        if operand.ndim == 0:
            raise ShapeError(
                f"scan: xs has a tensor of shape []; its first axis must be the steps (at {user_source()})"
            )
    lengths = {operand.shape[0] for operand in operands} | (set() if length is None else {length})
    if len(lengths) != 1:
        found = "give xs or length" if not lengths else f"xs and length name {sorted(lengths)} steps"
        raise ShapeError(f"scan: the number of steps must be one: {found} (at {user_source()})")
    (steps,) = lengths
    if steps < 0:
        raise ShapeError(f"scan: length must not be negative, got {steps} (at {user_source()})")
    return steps


__all__ = ["scan"]
